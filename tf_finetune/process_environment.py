"""Which of several processes this is, as Keras's variables in the environment say, and for whom they are not."""

import dataclasses
import json
import os
from collections.abc import Callable, Mapping

from tf_finetune.errors import InputError

# What Keras calls the processes by, in the environment of each.
ADDRESSES, COUNT, INDEX = VARIABLES = (
    "KERAS_DISTRIBUTION_JOB_ADDRESSES",
    "KERAS_DISTRIBUTION_NUM_PROCESSES",
    "KERAS_DISTRIBUTION_PROCESS_ID",
)
OF_TENSORFLOW = "TF_CONFIG"


@dataclasses.dataclass(frozen=True)
class Place:
    """One of the processes, as the environment says.

    Attributes:
        coordinator: "host:port" of process 0.
        count: how many there are.
        index: of this one, from 0.
    """

    coordinator: str = ""
    count: int = 1
    index: int = 0


def given(backend: str, environment: Mapping[str, str] = os.environ) -> Place:
    """Which process the environment says that this is.

    Raises:
        InputError: half of it is missing, it contradicts itself, the backend is not JAX, or TF_CONFIG names a cluster.
    """
    _refuse_cluster(environment)
    values = {name: environment.get(name, "") for name in VARIABLES}
    if not any(values.values()):
        return Place()
    if missing := [name for name, value in values.items() if not value]:
        there = ", ".join(name for name in VARIABLES if name not in missing)
        raise InputError(f"{there} without {' and '.join(missing)}", where="the environment", expected="all or none")
    number = _number(values[COUNT], COUNT, "the number of processes, 1 or more", lambda number: number >= 1)
    whose = f"a number from 0 to {number - 1}, another one in each process"
    place = _number(values[INDEX], INDEX, whose, lambda place: 0 <= place < number)
    addresses = values[ADDRESSES].split(",")
    if len(addresses) not in (1, number):
        expected, got = f"that of process 0, or one for each of {number} processes", f"{len(addresses)} addresses"
        raise InputError("not the addresses", where=ADDRESSES, expected=expected, got=got)
    host, _, port = addresses[0].rpartition(":")
    if not host or not port.isdecimal():
        raise InputError("no address", where=ADDRESSES, expected="HOST:PORT of process 0", got=addresses[0])
    if number > 1 and backend != "jax":
        expected, got = "--config.runtime.backend=jax, or the variable unset", f"the {backend} backend"
        raise InputError("many processes train on JAX", where=COUNT, expected=expected, got=got)
    return Place(addresses[0], number, place)


def _number(value: str, name: str, expected: str, is_right: Callable[[int], bool]) -> int:
    if not (value.isascii() and value.isdecimal() and is_right(int(value))):
        raise InputError("not a process", where=name, expected=expected, got=value)
    return int(value)


def _refuse_cluster(environment: Mapping[str, str]) -> None:
    """TensorFlow's own variable; a cluster of one is none."""
    try:
        cluster = json.loads(environment.get(OF_TENSORFLOW) or "{}").get("cluster", {})
        tasks = sum(map(len, cluster.values()))
    except (ValueError, AttributeError, TypeError):
        tasks = None
    if tasks is None or tasks > 1:
        expected = f"it unset; on JAX (runtime.backend=jax) {', '.join(VARIABLES)} name the processes"
        got = "what cannot be read" if tasks is None else f"a cluster of {tasks} tasks"
        raise InputError("no training by MultiWorkerMirroredStrategy", where=OF_TENSORFLOW, expected=expected, got=got)


def refuse(command: str) -> None:
    """For what one process does alone.

    Raises:
        InputError: the environment says that there are several.
    """
    if (os.environ.get(COUNT) or "1") != "1":
        expected, got = f"{', '.join(VARIABLES)} unset: it runs in one process", f"{os.environ[COUNT]} processes"
        raise InputError(f"{command} is not for several processes", where="the environment", expected=expected, got=got)

"""What commands that train several runs share: a folder for them, a plan that stays the same, and signals."""

import contextlib
import gc
from collections.abc import Iterator
from typing import Any

from tf_finetune import json_files, process_environment
from tf_finetune.config import ExperimentConfig
from tf_finetune.errors import InputError
from tf_finetune.training.stops import Stops
from tf_finetune.workdir import Workdir

PLAN = "plan.json"


def check(config: ExperimentConfig) -> None:
    """Refuses a budget of tokens that is found anew for each run: the runs could not be compared.

    Raises:
        InputError: there is one.
    """
    process_environment.refuse("a command of several runs")
    if config.train.batch_tokens == 0:
        expected = "a number of tokens, as that of the free memory is another one for each run"
        raise InputError("no common budget", where="train.batch_tokens", expected=expected, got=0)


@contextlib.contextmanager
def at_work(root: Workdir, plan: dict[str, Any], *, is_process: bool) -> Iterator[Workdir]:
    """Holds the folder, whose plan.json says what it is for, and answers signals between the runs.

    Args:
        root: the folder of all the runs.
        plan: JSON-ready; another one there is refused.
        is_process: as of `train`.

    Raises:
        InputError: the folder holds a run, or something else was begun there.
        Interrupted: by a signal between two runs.
    """
    if root.config.exists():
        raise InputError("the folder holds a run", where=root.path, expected="a folder for several runs")
    stops = Stops(is_process=is_process)
    with stops.watched(), root.locked():
        path = root.path / PLAN
        if path.exists() and json_files.read_object(path) != plan:
            expected = "what it was begun with, as plan.json there has it, or another --workdir"
            raise InputError("the folder is for other runs", where=root.path, expected=expected)
        json_files.write(path, plan)
        yield root


def forget_plan(root: Workdir) -> None:
    """For what could not even begin."""
    (root.path / PLAN).unlink()


def forget_models() -> None:
    """Gives the memory of a finished run back, once nothing holds its model."""
    import keras

    keras.backend.clear_session()
    gc.collect()

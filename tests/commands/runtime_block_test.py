"""The block that says what a run computes on, of devices that are not here."""

import pytest

from tf_finetune.commands.batch_memory import ExpectedMemory
from tf_finetune.commands.runtime_block import runtime_block
from tf_finetune.config import ExperimentConfig, Strategy
from tf_finetune.devices import Devices

WHY = {name: f"why {name}" for name in ("devices", "backend", "precision", "strategy")}


def lines(
    *, backend="tensorflow", kind="CPU", names=("one",), strategy=Strategy.ONE_DEVICE, num_shapes=2, with_xla=False
):
    config = ExperimentConfig()
    config.train.num_shapes = num_shapes
    devices = Devices("float32", backend, kind, names, strategy, WHY)
    memory = ExpectedMemory(texts=32, length=64, needed=2**30, free=None)
    block = runtime_block(devices, config, [64, 32, 64], with_xla=with_xla, memory=memory).splitlines()
    assert block[0].startswith("runtime: ")
    return dict(line.split(maxsplit=1) for line in block[1:])


def test_every_choice_has_its_reason():
    found = lines(kind="GPU", names=("a", "b"), strategy=Strategy.MIRRORED)
    assert list(found) == ["devices", "backend", "precision", "XLA", "strategy", "shapes", "memory"]
    assert found["devices"] == "2 GPU: why devices"
    assert found["strategy"] == "mirrored, 2 devices share each batch: why strategy"
    assert found["memory"] == "about 1.0 GiB, nobody says how much is free: a batch of 32 texts x 64 tokens"


@pytest.mark.parametrize(
    ("options", "is_on"),
    [
        ({"backend": "jax"}, True),
        ({"kind": "GPU", "with_xla": True}, True),
        ({"kind": "TPU", "strategy": Strategy.TPU}, True),
        ({}, False),
        ({"kind": "GPU", "names": ("a", "b"), "strategy": Strategy.MIRRORED}, False),
    ],
)
def test_lengths_are_compiled_for_where_xla_is_on(options, is_on):
    found = lines(**options)
    assert found["XLA"].startswith("on: " if is_on else "off: ")
    expected = "batches of 32, 64 tokens: at most train.num_shapes=2" + ", each compiled for" * is_on
    assert found["shapes"] == expected


def test_without_a_number_of_shapes_a_batch_is_as_long_as_it_is():
    assert lines(num_shapes=0)["shapes"].startswith("each batch is as long as its longest text")

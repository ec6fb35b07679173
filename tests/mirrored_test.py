"""Several devices of one machine come to what one device comes to, on logical CPU devices in another process."""

import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from films import write_films
from mirrored_training import FEW
from outcomes import differences, outcome, records

SCRIPT = Path(__file__).with_name("mirrored_training.py")
# The largest difference from one device of (losses, logits, weights, slots of the optimizer). Under mixed precision
# each device rounds its own gradients.
TOLERANCES = {
    "plain": (1e-5, 1e-5, 1e-5, 1e-5),
    "accumulated": (1e-5, 1e-5, 1e-5, 1e-5),
    "rounded": (5e-3, 2e-2, 5e-3, 2e-2),
}
SEVERAL = [(case, replicas) for case, replicas in FEW if replicas]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_checkpoint):
    """Of the script, after it has run."""
    folder = tmp_path_factory.mktemp("mirrored")
    write_films(folder / "films.csv")
    shutil.copytree(tiny_checkpoint, folder / "checkpoint")
    result = subprocess.run(
        [sys.executable, "-W", "error", SCRIPT, folder], capture_output=True, text=True, env=os.environ
    )
    assert result.returncode == 0, result.stderr
    assert "not killed" not in result.stdout
    return folder


@pytest.fixture(scope="module")
def found(folder):
    return json.loads((folder / "found.json").read_text())


def without_key_biases(arrays):
    """The biases of keys aside: attention does not depend on them, so that their gradient is rounding and nothing else,
    which AdamW makes whole steps of."""
    return {
        name: [*array[: len(array) // 3], *array[-len(array) // 3 :]] if name.endswith("attention/qkv/bias") else array
        for name, array in arrays.items()
    }


def largest_differences(found, expected):
    """Of losses and accuracies, of logits, of weights, and of the optimizer's slots."""

    def largest(one, other):
        return float(np.abs(np.asarray(one) - np.asarray(other)).max())

    found, expected = ({**one, "arrays": without_key_biases(one["arrays"])} for one in (found, expected))
    logits = largest(found["logits"], expected["logits"]) if "logits" in found else 0.0
    weights, slots = (
        max(
            largest(found["arrays"][name], array)
            for name, array in expected["arrays"].items()
            if name.startswith("optimizer/") == is_slot and not name.startswith("seeds/")
        )
        for is_slot in (False, True)
    )
    finite = np.isfinite(expected["losses"])
    assert (np.isfinite(found["losses"]) == finite).all()
    return largest(np.array(found["losses"])[finite], np.array(expected["losses"])[finite]), logits, weights, slots


@pytest.mark.parametrize(("case", "replicas"), SEVERAL)
def test_every_step_is_that_of_one_device(found, case, replicas):
    one, several = (found["cases"][case][str(number)] for number in (0, replicas))
    assert (several["padding_rows"] > 0) == (replicas > 1)
    assert (np.array(largest_differences(several, one)) <= TOLERANCES[case]).all(), largest_differences(several, one)


@pytest.mark.parametrize(("case", "replicas"), SEVERAL)
def test_a_step_that_is_not_finite_is_skipped_on_all(found, case, replicas):
    several = found["cases"][case][str(replicas)]
    assert int(np.isfinite(several["losses"])[:, 0].sum()) == len(several["losses"]) - 1
    assert several["arrays"]["optimizer/adamw/skipped_steps"] == 1
    assert several["copies_differ"] == []


def test_all_logical_devices_are_taken(found):
    assert found["mirrored"] == [f"CPU:{number}" for number in range(8)]


def test_a_killed_run_ends_as_if_nothing_had_happened(folder):
    assert differences(outcome(folder / "killed"), outcome(folder / "reference")) == []


def test_the_devices_are_kept_with_the_checkpoint(folder):
    manifest = json.loads(next((folder / "reference" / "checkpoints").glob("*/manifest.json")).read_text())
    assert manifest["surroundings"].items() >= {"strategy": "mirrored", "replicas": 2}.items()
    losses = [record["loss"] for record in records(folder / "reference") if record["split"] == "train"]
    assert all(one != other for one, other in itertools.pairwise(losses))

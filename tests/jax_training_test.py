"""Training on JAX against TensorFlow, on 1, 2 and 8 devices, through kills, and as far as a served answer."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax_training
import numpy as np
import pytest
from films import write_films
from outcomes import differences, outcome, records

from tf_finetune import TFBertForSequenceClassification
from tf_finetune.commands.evaluate import evaluate
from tf_finetune.commands.train import train
from tf_finetune.commands.verify import verify
from tf_finetune.config import Backend
from tf_finetune.errors import InputError


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tiny_checkpoint):
    """The folder of what jax_training.py left behind, and what it printed."""
    folder = tmp_path_factory.mktemp("jax")
    write_films(folder / "films.csv")
    shutil.copytree(tiny_checkpoint, folder / "checkpoint")
    # With a head for these labels: a new one has other random weights on each backend.
    model = TFBertForSequenceClassification.from_pretrained(tiny_checkpoint, id2label=["neg", "pos"])
    model.save_pretrained(folder / "checkpoint")
    command = [sys.executable, jax_training.__file__, str(folder)]
    result = subprocess.run(command, capture_output=True, text=True, env=os.environ)
    assert result.returncode == 0, result.stderr
    return folder, result.stdout


def losses(workdir):
    """The loss of each step by itself: metrics.jsonl has the mean of the epoch so far. 0 of a step that was skipped."""
    seen = [record for record in records(workdir) if record["split"] == "train"]
    means, firsts = np.array([record["loss"] for record in seen]), {}
    numbers = np.array([record["step"] - firsts.setdefault(record["epoch"], record["step"]) + 1 for record in seen])
    numbers -= [record["skipped_steps"] for record in seen]  # in runs of one epoch
    sums = means * numbers
    return np.where(numbers == 1, sums, sums - np.concatenate([[0], sums[:-1]]))


def test_every_step_is_that_of_tensorflow(trained, tmp_path):
    folder, _ = trained
    config = jax_training.plain(folder)
    config.runtime.backend = Backend.TENSORFLOW
    train(config, tmp_path / "run")
    on_jax, on_tensorflow = losses(folder / "plain_1"), losses(tmp_path / "run")
    assert len(on_jax) == 24
    np.testing.assert_allclose(on_jax, on_tensorflow, rtol=0, atol=1e-4)
    assert np.ptp(on_jax) > 0.1


@pytest.mark.parametrize(
    ("way", "number", "tolerance"),
    # bfloat16 rounds every sum of a gradient, and each device has a sum of its own.
    [("plain", 8, 1e-5), ("accumulated", 2, 1e-5), ("accumulated", 8, 1e-5), ("rounded", 8, 2e-2)],
)
def test_devices_share_a_batch_and_change_nothing(trained, way, number, tolerance):
    folder, _ = trained
    alone, shared = losses(folder / f"{way}_1"), losses(folder / f"{way}_{number}")
    np.testing.assert_allclose(shared, alone, rtol=0, atol=tolerance)
    assert np.ptp(alone[alone > 0]) > 0.1
    accuracies = [[record["accuracy"] for record in records(folder / f"{way}_{n}")[:-1]] for n in (1, number)]
    np.testing.assert_allclose(*accuracies, rtol=0, atol=1e-6 if way != "rounded" else 0.1)


def test_pieces_that_fit_nothing_add_up_to_the_batch(trained):
    folder, _ = trained
    pieces = losses(folder / "accumulated_1")
    np.testing.assert_allclose(pieces, losses(folder / "plain_1"), rtol=0, atol=1e-4)


@pytest.mark.parametrize("number", jax_training.WAYS[jax_training.rounded])
def test_a_step_whose_loss_is_not_finite_is_passed_over(trained, number):
    folder, _ = trained
    seen = losses(folder / f"rounded_{number}")
    assert (len(seen), (seen == 0).sum(), records(folder / f"rounded_{number}")[-2]["skipped_steps"]) == (6, 1, 1)


def test_a_run_that_is_killed_again_and_again(trained):
    folder, printed = trained
    assert "not killed" not in printed
    assert printed.count("going on at step") == 2
    assert differences(outcome(folder / "killed"), outcome(folder / "reference")) == []


def test_what_jax_trained_is_evaluated_exported_and_verified(trained):
    folder, printed = trained
    assert f"published {folder / 'reference' / 'export' / '1'}" in printed
    assert "answers through TensorFlow's C API" in printed  # of the second process
    assert all(check.kept is not False for check in verify(folder / "reference"))
    on_jax = json.loads((folder / "evaluation.json").read_text())
    for split, metrics in evaluate(folder / "reference").items():
        assert on_jax[split]["loss"] == pytest.approx(metrics["loss"], abs=1e-5)
        assert on_jax[split]["accuracy"] == metrics["accuracy"]


def test_the_block_says_what_was_chosen_and_why(trained):
    _, printed = trained
    block = printed[printed.rindex("runtime: CPU") :].splitlines()
    assert "JAX" in block[0]
    names = [line.split()[0] for line in block[1:8]]
    assert names == ["devices", "backend", "precision", "XLA", "strategy", "shapes", "memory"]
    assert "8 CPU: JAX sees 8: cpu" in block[1]
    assert "data_parallel, 8 devices share each batch: as runtime.strategy says" in block[5]
    assert "at most train.num_shapes=1" in block[6]


def test_a_run_stays_on_its_backend(trained):
    folder, _ = trained
    config = jax_training.plain(folder)
    config.runtime.backend = Backend.AUTO
    with pytest.raises(InputError, match="another backend, .*expected --config.runtime.backend=jax; .* got tensorflow"):
        train(config, folder / "plain_1")


def test_keras_is_on_one_backend_in_a_process(tmp_path):
    config = jax_training.plain(Path(tmp_path))
    expected = "expected KERAS_BACKEND=jax in the environment before Keras is imported, got tensorflow"
    with pytest.raises(InputError, match=f"runtime.backend=jax .*{expected}"):
        train(config, tmp_path / "run")

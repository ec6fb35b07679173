"""The other ways to train, from the command line and on JAX: a random tiny model on some of the packaged reviews."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from outcomes import records
from safetensors.numpy import load_file

from tf_finetune.workdir import Workdir

# Each compiles what it trains anew.
pytestmark = pytest.mark.slow
FLAGS = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"


@pytest.fixture
def on_jax(tmp_path):
    """Runs a command on JAX; returns what it printed, and its folder."""

    def run(command, *flags):
        arguments = [command, "--config=smoke", "--config.runtime.backend=jax", f"--workdir={tmp_path / 'run'}", *flags]
        result = subprocess.run(
            [sys.executable, "-m", "tf_finetune", *arguments],
            capture_output=True,
            text=True,
            env=os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": FLAGS},
        )
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout, tmp_path / "run"

    return run


def test_low_rank(on_jax):
    _, run = on_jax("train", "--config.model.lora_rank=2", "--config.model.lora_targets=all_linear")
    tensors = load_file(Workdir(run).best_checkpoint() / "model.safetensors")
    assert not [name for name in tensors if "lora" in name]
    state = load_file(Workdir(run).best_checkpoint() / "training_state.safetensors")
    assert any(value.any() for name, value in state.items() if "lora_kernel_b" in name)


def test_it_stops_early(on_jax):
    flags = ["--config.train.epochs=6", "--config.train.early_stopping_patience=1", "--config.train.best_metric=loss"]
    printed, run = on_jax("train", *flags, "--config.optimizer.learning_rate=1e-30")
    assert "stopping early: no better validation since epoch 1" in printed
    assert [record["epoch"] for record in records(run) if record["split"] == "validation"] == [-1, 0, 1]


def test_a_dry_run(on_jax):
    printed, run = on_jax("train", "--dry_run")
    assert "dry run passed" in printed
    assert not run.exists()


def test_the_learning_rate_finder(on_jax):
    _, run = on_jax("find-learning-rate", "--config.data.max_examples=512")
    curve = json.loads((run / "learning_rates.json").read_text())
    lowest = int(np.argmin(curve["smoothed"]))
    assert curve["suggested"] == pytest.approx(0.1 * curve["learning_rate"][lowest], rel=0.05)
    assert lowest > 0
    assert curve["learning_rate"][0] == pytest.approx(1e-7)


def test_every_fold(on_jax):
    _, run = on_jax("cross-validate", "--config.data.folds=2")
    found = json.loads((run / "cross_validation.json").read_text())
    assert len(found["folds"]) == 2
    assert np.isfinite(found["mean"]["loss"])


def test_a_sweep(on_jax):
    printed, run = on_jax("sweep", "--search=optimizer.learning_rate=1e-4..1e-2,log", "--trials=2")
    rows = json.loads((run / "sweep.json").read_text())
    assert sorted(row["trial"] for row in rows) == [0, 1]
    assert all("validation" in row for row in rows)
    assert "rank  trial" in printed

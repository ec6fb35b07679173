"""Trains on JAX on eight virtual devices, for tests/jax_training_test.py: python jax_training.py FOLDER.

FOLDER holds films.csv and checkpoint/; each run is kept in it under its name.
"""

import contextlib
import dataclasses
import json
import os
import sys
from pathlib import Path
from unittest import mock

import numpy as np
from films import three_epochs

from tf_finetune import devices
from tf_finetune.config import Backend, ClassWeights, Precision, Strategy

# A short way through the compiler: what is compared takes no time, and eight models are compiled.
FLAGS = (
    "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0 "
    "--xla_llvm_disable_expensive_passes=true --xla_cpu_use_fusion_emitters=false"
)
BAD = 17  # the example whose weight makes its step not finite


def plain(folder):
    """Twenty-four steps without dropout, each of them logged."""
    config = three_epochs(folder / "films.csv", folder / "checkpoint")
    config.train.epochs, config.train.log_every_steps, config.train.num_shapes = 4, 1, 1
    config.model.hidden_dropout = config.model.attention_dropout = config.model.classifier_dropout = 0.0
    config.runtime.compiled, config.runtime.backend = False, Backend.JAX
    return config


def accumulated(folder):
    """The same in pieces that neither batch nor devices can be divided by."""
    config = plain(folder)
    config.train.accumulation_steps = 3
    return config


def rounded(folder):
    """An epoch of that with mixed precision."""
    config = accumulated(folder)
    config.train.epochs, config.runtime.precision = 1, Precision.BFLOAT16
    return config


# Devices that each is trained on.
WAYS = {plain: (1, 8), accumulated: (1, 2, 8), rounded: (1, 8)}


def recipe(folder):
    """Much of what there is, with dropout, on all devices."""
    config = three_epochs(folder / "films.csv", folder / "checkpoint")
    config.train.epochs, config.train.num_shapes, config.train.checkpoint_every_steps = 2, 1, 2
    config.train.gradient_checkpointing, config.train.accumulation_steps = True, 2
    config.train.label_smoothing, config.train.class_weights = 0.1, ClassWeights.BALANCED
    config.optimizer.layer_decay, config.optimizer.ema_momentum = 0.8, 0.8
    config.runtime.backend, config.runtime.strategy = Backend.JAX, Strategy.DATA_PARALLEL
    return config


@contextlib.contextmanager
def first_devices(number):
    """JAX has so many within it."""
    found = devices.jax_devices()[:number]
    with mock.patch.object(devices, "jax_devices", return_value=found):
        yield


@contextlib.contextmanager
def one_infinite_weight():
    """Training examples have weights within it, one of them infinite."""
    from tf_finetune.commands import fit

    def weighted(examples, *others):
        weights = np.ones(len(examples), np.float32)
        weights[BAD] = np.inf
        return dataclasses.replace(examples, weights=weights)

    with mock.patch.object(fit, "weighted", weighted):
        yield


def main(folder):
    import faults

    from tf_finetune.commands.evaluate import evaluate
    from tf_finetune.commands.export import export
    from tf_finetune.commands.train import train

    for make, numbers in WAYS.items():
        for number in numbers:
            with first_devices(number), one_infinite_weight() if make is rounded else contextlib.nullcontext():
                train(make(folder), folder / f"{make.__name__}_{number}")
    train(recipe(folder), folder / "reference")
    for point in (("step", 5), ("validation", 1)):
        with contextlib.suppress(faults.KilledError), contextlib.ExitStack() as patched:
            faults.at(
                *point,
                faults.killed,
                set_attribute=lambda *what: patched.enter_context(mock.patch.object(*what)),  # noqa: B023
            )
            train(recipe(folder), folder / "killed")
            print("not killed", point)
    train(recipe(folder), folder / "killed")
    (folder / "evaluation.json").write_text(json.dumps(evaluate(folder / "reference")))
    print("published", export(folder / "reference"))


if __name__ == "__main__":
    os.environ.update(XLA_FLAGS=FLAGS, JAX_PLATFORMS="cpu", KERAS_BACKEND="jax", TF_CPP_MIN_LOG_LEVEL="3")
    # What goes on after a kill need not be compiled again.
    os.environ.update(JAX_COMPILATION_CACHE_DIR=f"{sys.argv[1]}/xla", JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0")
    main(Path(sys.argv[1]))

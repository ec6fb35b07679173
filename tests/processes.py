"""Trains together with other processes, for tests/processes_test.py: python processes.py FOLDER NAME.

FOLDER holds films.csv and checkpoint/; each run is kept in it under its name.
"""

import contextlib
import json
import os
import signal
import sys
from pathlib import Path
from unittest import mock

from films import three_epochs

from tf_finetune import cli, devices, processes, settings
from tf_finetune.config import Backend
from tf_finetune.errors import Interrupted

# A short way through the compiler.
FLAGS = (
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true --xla_cpu_use_fusion_emitters=false"
)


def with_dropout(folder):
    config = three_epochs(folder / "films.csv", folder / "checkpoint")
    config.train.num_shapes, config.train.checkpoint_every_steps = 1, 4
    config.runtime.backend = Backend.JAX
    return config


def without_dropout(folder):
    config = with_dropout(folder)
    config.train.epochs = 1
    config.model.hidden_dropout = config.model.attention_dropout = config.model.classifier_dropout = 0.0
    return config


@contextlib.contextmanager
def signalled(number, step):
    """This process gets the signal after so many steps of the run."""
    from tf_finetune.training.callbacks import Progress

    real = Progress.on_train_batch_end

    def on_train_batch_end(self, batch, logs=None):
        real(self, batch, logs)
        if self.first_step + self.first_batch + batch + 1 == step:
            os.kill(os.getpid(), number)

    with mock.patch.object(Progress, "on_train_batch_end", on_train_batch_end):
        yield


def train(folder, make, name):
    from tf_finetune.commands.train import train

    return train(make(folder), folder / name, is_process=True)


def main(folder, name):
    if name == "alone":
        train(folder, with_dropout, "two_devices")
        first = devices._jax_devices()[:1]
        with mock.patch.object(devices, "_jax_devices", return_value=first):
            train(folder, without_dropout, "one_device")
    if name == "interrupted":  # by a signal to one process, and then by the loss of it
        is_second = os.environ.get(processes.INDEX) == "1"
        with signalled(signal.SIGTERM, 3) if is_second else contextlib.nullcontext():
            try:
                train(folder, with_dropout, "together")
            except Interrupted as interruption:
                print("INTERRUPTED", interruption, file=sys.stderr, flush=True)
        with signalled(signal.SIGKILL, 11) if is_second else contextlib.nullcontext():
            command(folder, with_dropout, "together")
    if name == "to_the_end":
        train(folder, without_dropout, "without_dropout")
        command(folder, with_dropout, "together")


def command(folder, make, name):
    """As the command line does it, its exit included."""
    file = folder / f"{make.__name__}_{os.environ[processes.INDEX]}.json"
    file.write_text(json.dumps(settings.to_dict(make(folder))))
    sys.exit(cli.main(["tf-finetune", "train", f"--config={file}", f"--workdir={folder / name}"]))


if __name__ == "__main__":
    os.environ["XLA_FLAGS"] = f"{FLAGS} {os.environ.get('XLA_FLAGS', '')}"
    os.environ["KERAS_BACKEND"] = "jax"
    main(Path(sys.argv[1]), sys.argv[2])

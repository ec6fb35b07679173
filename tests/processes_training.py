"""Trains with dropout, alone or with others, for tests/processes_test.py: python processes_training.py FOLDER NAME.

FOLDER holds films.csv and checkpoint/.
"""

import contextlib
import json
import os
import signal
import sys
from pathlib import Path
from unittest import mock

from films import three_epochs

from tf_finetune import cli, process_environment, settings
from tf_finetune.config import Backend
from tf_finetune.errors import Interrupted

# A short way through the compiler.
FLAGS = (
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true --xla_cpu_use_fusion_emitters=false"
)


def config_of(folder):
    config = three_epochs(folder / "films.csv", folder / "checkpoint")
    config.train.epochs, config.train.num_shapes, config.train.checkpoint_every_steps = 2, 1, 4
    config.runtime.backend = Backend.JAX
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


def main(folder, name):
    from tf_finetune.commands.train import train

    if name == "alone":
        train(config_of(folder), folder / "alone", is_process=True)
    if name == "interrupted":  # by a signal to one process, and then by the loss of it
        is_second = os.environ.get(process_environment.INDEX) == "1"
        with signalled(signal.SIGTERM, 3) if is_second else contextlib.nullcontext():
            try:
                train(config_of(folder), folder / "together", is_process=True)
            except Interrupted as interruption:
                print("INTERRUPTED", interruption, file=sys.stderr, flush=True)
        with signalled(signal.SIGKILL, 10) if is_second else contextlib.nullcontext():
            command(folder)
    if name == "to_the_end":
        command(folder)


def command(folder):
    """As the command line does it, its exit included."""
    file = folder / f"config_{os.environ[process_environment.INDEX]}.json"
    file.write_text(json.dumps(settings.to_dict(config_of(folder))))
    sys.exit(cli.main(["tf-finetune", "train", f"--config={file}", f"--workdir={folder / 'together'}"]))


if __name__ == "__main__":
    os.environ["XLA_FLAGS"] = f"{FLAGS} {os.environ.get('XLA_FLAGS', '')}"
    os.environ["KERAS_BACKEND"] = "jax"
    main(Path(sys.argv[1]), sys.argv[2])

"""Commands that need TensorFlow, asked for in a process whose Keras is on JAX: they run in another one."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tf_finetune import devices, settings
from tf_finetune.config import ExperimentConfig
from tf_finetune.errors import InputError, RunError
from tf_finetune.workdir import Workdir


def is_needed() -> bool:
    """Whether Keras is on JAX here, or would be once it is imported."""
    return devices.check_backend() == "jax"


def run_on_tensorflow(command: str, workdir: str | Path, config: ExperimentConfig | None, *flags: str) -> None:
    """Runs `tf-finetune COMMAND` on TensorFlow; what it prints is printed here.

    Args:
        command: such as "export".
        workdir: of a training run.
        config: the run's own with changes that the command can act on, or None.
        *flags: the command's own, such as "--audit".

    Raises:
        InputError, RunError: what the command ended with.
    """
    flags = [*flags, f"--workdir={workdir}", *_overrides(Workdir(workdir), config)]
    environment = os.environ | {"KERAS_BACKEND": "tensorflow", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with tempfile.TemporaryFile("w+", encoding="utf-8") as complaints:
        process = subprocess.Popen(
            [sys.executable, "-m", "tf_finetune", command, *flags],
            stdout=subprocess.PIPE,
            stderr=complaints,
            text=True,
            encoding="utf-8",
            env=environment,
        )
        with process:
            for line in process.stdout:  # as it comes, to wherever this process prints
                print(line, end="", flush=True)
        complaints.seek(0)
        said = complaints.read()
    *before, last = said.splitlines() or [""]
    print("".join(f"{line}\n" for line in before), end="", file=sys.stderr, flush=True)
    if process.returncode:
        error = InputError if process.returncode == 2 else RunError
        raise error(last.removeprefix("error: ") or f"{command} ended with status {process.returncode}")
    print(last, end="\n" if last else "", file=sys.stderr, flush=True)


def _overrides(run: Workdir, config: ExperimentConfig | None) -> list[str]:
    """The flags that make the run's own config the one given."""
    if config is None:
        return []
    trained = dict(settings.fields(settings.load_json(run.config)))
    return [
        f"--config.{name}={settings.plain(value)}" for name, value in settings.fields(config) if value != trained[name]
    ]

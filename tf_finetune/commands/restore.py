"""What evaluate, predict, drift, export and verify start from: the best checkpoint of a workdir and its config."""

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

from tf_finetune import devices, runtime, settings
from tf_finetune.config import ExperimentConfig
from tf_finetune.data import sources
from tf_finetune.errors import InputError
from tf_finetune.workdir import MANIFEST, Workdir, read_manifest

if TYPE_CHECKING:
    from tf_finetune.evaluation.classifier import Classifier

# What may differ from the training run, by command. Everything else is a fact of the trained model.
CHANGEABLE = {
    "evaluate": (
        "data.source",
        "data.text_column",
        "data.text_pair_column",
        "data.label_column",
        "data.max_examples",
        "train.eval_batch_size",
    ),
    "compare": (
        "data.source",
        "data.text_column",
        "data.text_pair_column",
        "data.label_column",
        "data.slice_columns",
        "train.eval_batch_size",
    ),
    "report": ("data.slice_columns", "train.eval_batch_size"),
    "predict": ("data.text_column", "data.text_pair_column", "train.eval_batch_size"),
    "drift": ("data.text_column", "data.text_pair_column", "train.eval_batch_size"),
    "export": ("export.verify", "export.litert", "export.onnx", "export.compared_examples"),
    "verify": ("export.compared_examples",),
}


def trained_run(command: str, workdir: str | Path, config: ExperimentConfig | None) -> tuple[Path, ExperimentConfig]:
    """Finds the best checkpoint, its files checked, before TensorFlow is imported.

    Args:
        command: which command asks.
        workdir: of a training run.
        config: the run's own, with changes the command can act on; None means just the run's own.

    Returns:
        The checkpoint's folder, and the config with its places pinned.

    Raises:
        InputError: no trained model there, or a change that the command cannot act on.
    """
    run = Workdir(workdir)
    folder = run.best_checkpoint()
    trained = settings.load_json(run.config)
    config = with_places_of(trained, settings.validated(config or trained))
    before = dict(settings.fields(trained))
    for name, value in settings.fields(config):
        other_task = name == "data.text_pair_column" and bool(value) != bool(before[name])
        if value != before[name] and (other_task or name not in CHANGEABLE[command]):
            raise InputError(
                f"{command} cannot change {name} of a trained model",
                where=run.config,
                expected=f"{before[name]}, or no override",
                got=value,
            )
    return folder, config


def with_places_of(trained: ExperimentConfig, config: ExperimentConfig) -> ExperimentConfig:
    """A copy with the pinned places of the training run where the config means the same, and its own else."""
    source, checkpoint = config.data.source, config.model.checkpoint
    is_theirs = any(_stands_for(name, trained.data.source) for name in sources.names_of(source))
    source = trained.data.source if is_theirs else sources.pinned(source)
    if _stands_for(checkpoint, trained.model.checkpoint) or _is_run_of(checkpoint, trained.model.checkpoint):
        checkpoint = trained.model.checkpoint
    return settings.with_places(config, source, checkpoint)


def _is_run_of(name: str, place: str) -> bool:
    """Whether the name is the workdir that the checkpoint is in: that of then, whichever does best there now."""
    folder = Path(place).parent
    return folder.name == "checkpoints" and folder.parent == Path(name).expanduser().absolute()


def _stands_for(name: str, place: str) -> bool:
    """Whether a run that was given the name may have pinned it to the place: a path, a commit, a version of tfds."""
    if name.startswith("tfds:") and place.startswith((f"{name}/", f"{name}:")):
        return True
    if place == name or place.startswith(f"{name}@"):
        return True
    path = Path(name).expanduser()
    return str(path.absolute()) == place or (path.exists() and os.path.exists(place) and os.path.samefile(path, place))


def load_classifier(folder: Path, config: ExperimentConfig) -> "Classifier":
    """The checkpoint in a folder, in float32 and ready to answer."""
    runtime.import_tensorflow_quietly()
    if config.runtime.deterministic:
        devices.use_deterministic_operations()
    from tf_finetune.evaluation.classifier import Classifier

    options = settings.classifier_options(config)
    return Classifier.from_checkpoint(folder, temperature=temperature_of(folder), **options)


def temperature_of(checkpoint: Path) -> float:
    """The one fitted on validation; 1 where there is none.

    Raises:
        InputError: the manifest is damaged.
    """
    temperature = read_manifest(checkpoint).get("temperature", 1.0)
    if type(temperature) not in (int, float) or not 0 < temperature < math.inf:
        raise InputError(
            "not a temperature", where=checkpoint / MANIFEST, expected="a number above 0", got=repr(temperature)
        )
    return temperature

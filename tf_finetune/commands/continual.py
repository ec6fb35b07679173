"""Going on from a fine-tuned model with new data: what its run was trained on, and how much of that is still known."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tf_finetune import runtime, settings
from tf_finetune.bert.architecture import BertArchitecture
from tf_finetune.config import ExperimentConfig, ProblemType
from tf_finetune.data import sources
from tf_finetune.data.examples import Examples
from tf_finetune.errors import InputError
from tf_finetune.workdir import MANIFEST, Workdir, read_manifest

if TYPE_CHECKING:
    from tf_finetune.evaluation.classifier import Classifier


def checkpoint_of(name: str) -> str:
    """A `model.checkpoint`, or the best checkpoint of the workdir that it names.

    Raises:
        InputError: nothing has been trained there, or a file of it is damaged.
    """
    run = Workdir(name)
    if name and (run.best.is_file() or run.checkpoints.is_dir()):
        return str(run.best_checkpoint().absolute())
    return name


def is_of_run(checkpoint: str) -> bool:
    """Whether a pinned `model.checkpoint` is, or was, that of a run."""
    return Path(checkpoint).parent.name == Workdir("").checkpoints.name


def run_or_name(checkpoint: str) -> str:
    """The workdir of a run that a pinned `model.checkpoint` is of; any other as it is."""
    return str(Path(checkpoint).parent.parent) if is_of_run(checkpoint) else checkpoint


def earlier_run(checkpoint: str) -> Workdir | None:
    """The run whose checkpoint a pinned `model.checkpoint` is; None where it is none, or is no longer there."""
    folder = Path(checkpoint)
    run = Workdir(folder.parent.parent)
    return run if is_of_run(checkpoint) and (folder / MANIFEST).is_file() and run.config.is_file() else None


def known_labels(checkpoint: str) -> tuple[str, ...] | None:
    """Those of the run's model that a pinned `model.checkpoint` is of; None where it is of none.

    New data may have some of them alone: the model is to keep what it knows of the others.
    """
    if earlier_run(checkpoint) is None:
        return None
    return BertArchitecture.from_folder(Path(checkpoint)).id2label


def refuse_own_folder(checkpoint: str, run: Workdir) -> None:
    """Refuses a run that would go on from itself, and remove what it goes on from.

    Raises:
        InputError: the checkpoint is in the run's folder.
    """
    folder = Path(checkpoint).expanduser().absolute()
    if folder.is_dir() and (folder == run.path.absolute() or folder.is_relative_to(run.checkpoints.absolute())):
        raise InputError(
            "a run cannot go on from itself", where="model.checkpoint", expected="another --workdir", got=checkpoint
        )


def replayed(config: ExperimentConfig, splits: sources.Splits) -> Examples | None:
    """Training examples of the earlier run, drawn by seed, to be trained on beside the new ones; none of those that the
    new data validates or tests on.

    What the earlier run had itself replayed is not among them.

    Args:
        config: its places pinned.
        splits: the new data.

    Raises:
        InputError: there is no earlier run, its data is gone, or it has labels that the new data has not.
    """
    if not config.data.replay:
        return None
    if earlier_run(config.model.checkpoint) is None:
        expected, got = "model.checkpoint to be the workdir of a run", config.model.checkpoint
        raise InputError("nothing to replay", where="data.replay", expected=expected, got=got)
    theirs = _data_of(config.model.checkpoint, splits.label_names, splits.problem_type).examples["train"]
    held = {text for name in ("validation", "test") if name in splits.examples for text in splits.examples[name].texts}
    unheld = np.array([index for index, text in enumerate(theirs.texts) if text not in held], np.int64)
    count = round(config.data.replay * len(splits.examples["train"]))
    return theirs.take(unheld).drawn(count, config.runtime.seed)


def old_test(config: ExperimentConfig, classifier: "Classifier") -> sources.Splits | None:
    """The data of the earlier run, of which there is a test split; None where there is none, or other labels.

    Args:
        config: of the run that went on.
        classifier: whose labels the examples get.
    """
    if earlier_run(config.model.checkpoint) is None:
        return None
    try:
        found = _data_of(config.model.checkpoint, classifier.label_names, classifier.problem_type)
    except InputError as error:
        runtime.warn(f"the earlier run's test split is not measured: {error}")
        return None
    return found if "test" in found.examples else None


def config_of(checkpoint: str) -> ExperimentConfig:
    """The config of the run that a pinned `model.checkpoint` is of."""
    return settings.load_json(earlier_run(checkpoint).config)


def _data_of(checkpoint: str, label_names: tuple[str, ...], problem_type: ProblemType) -> sources.Splits:
    """What the run of a checkpoint was trained and measured on, its labels in the order of another model.

    Raises:
        InputError: it cannot be read any more, or has labels that the other model has not.
    """
    old = config_of(checkpoint)
    options = settings.source_options(old) | {"problem_type": problem_type}
    theirs = sources.load(**options)
    if not set(theirs.label_names) <= set(label_names):
        raise InputError(
            "the earlier run had other labels",
            where=old.data.source,
            expected=" or ".join(label_names),
            got=" or ".join(theirs.label_names),
        )
    now, trained = len(theirs.examples["train"]), read_manifest(Path(checkpoint)).get("data")  # not in earlier formats
    then = trained["train"]["examples"] if trained else now
    if now != then and not old.data.replay:
        runtime.warn(f"the earlier run's data has changed: it was trained on {then} examples, and there are {now} now")
    return theirs if theirs.label_names == label_names else sources.load(**options, label_names=label_names)

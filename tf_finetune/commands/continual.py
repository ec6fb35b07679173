"""Going on from a fine-tuned model with new data: what its run was trained on, and how much of that is still known."""

from pathlib import Path
from typing import TYPE_CHECKING

from tf_finetune import runtime, settings
from tf_finetune.bert.architecture import BertArchitecture
from tf_finetune.config import ExperimentConfig, ProblemType
from tf_finetune.data import sources
from tf_finetune.data.examples import Examples
from tf_finetune.errors import InputError
from tf_finetune.workdir import Workdir

if TYPE_CHECKING:
    from tf_finetune.evaluation.classifier import Classifier


def earlier_run(checkpoint: str) -> Workdir | None:
    """The run whose checkpoint a pinned `model.checkpoint` is; None where it is none, or the run is no longer there."""
    folder = Path(checkpoint)
    run = Workdir(folder.parent.parent)
    return run if folder.parent.name == run.checkpoints.name and run.config.is_file() else None


def config_of(checkpoint: str) -> ExperimentConfig:
    """The config of such a run."""
    return settings.load_json(earlier_run(checkpoint).config)


def label_names(config: ExperimentConfig, found: sources.Splits) -> tuple[str, ...] | None:
    """The earlier model's labels, where the new data has some of them and no others: it is to keep what it knows.

    Args:
        config: its places pinned.
        found: the new data.
    """
    if earlier_run(config.model.checkpoint) is None:
        return None
    architecture = BertArchitecture.from_folder(Path(config.model.checkpoint))
    same_kind = architecture.resolved_problem_type == found.problem_type.value
    is_part = set(found.label_names) < set(architecture.id2label)
    return architecture.id2label if same_kind and is_part else None


def replayed(config: ExperimentConfig, splits: sources.Splits) -> Examples | None:
    """Training examples of the earlier run, drawn by seed, to be trained on beside the new ones.

    Args:
        config: its places pinned.
        splits: the new data.

    Raises:
        InputError: there is no earlier run, its data is gone, or its labels are others.
    """
    if not config.data.replay:
        return None
    run = earlier_run(config.model.checkpoint)
    if run is None:
        expected, got = "model.checkpoint to be the workdir of a run", config.model.checkpoint
        raise InputError("nothing to replay", where="data.replay", expected=expected, got=got)
    found = _data_of(run, splits.label_names, splits.problem_type)
    return found.examples["train"].drawn(round(config.data.replay * len(splits.examples["train"])), config.runtime.seed)


def old_test(config: ExperimentConfig, classifier: "Classifier") -> sources.Splits | None:
    """The data of the earlier run, of which there is a test split; None where there is none, or another kind of labels.

    Args:
        config: of the run that went on.
        classifier: whose labels the examples get.
    """
    run = earlier_run(config.model.checkpoint)
    if run is None:
        return None
    try:
        found = _data_of(run, classifier.label_names, classifier.problem_type)
    except InputError as error:
        runtime.warn(f"the earlier run's test split is not measured: {error}")
        return None
    return found if "test" in found.examples else None


def _data_of(run: Workdir, label_names: tuple[str, ...], problem_type: ProblemType) -> sources.Splits:
    """What a run was trained and measured on, its labels in the order of another model.

    Raises:
        InputError: it cannot be read any more, or its labels are others.
    """
    config = settings.load_json(run.config)
    options = settings.source_options(config) | {"problem_type": problem_type}
    theirs = sources.load(**options)
    if set(theirs.label_names) != set(label_names):
        raise InputError(
            "the earlier run had other labels",
            where=run.config,
            expected=" or ".join(label_names),
            got=" or ".join(theirs.label_names),
        )
    return theirs if theirs.label_names == label_names else sources.load(**options, label_names=label_names)

"""What a training run starts from, found whole before TensorFlow is imported."""

import contextlib
import dataclasses
from pathlib import Path

from tf_finetune import pretrained, runtime, settings
from tf_finetune.bert.architecture import BertArchitecture
from tf_finetune.commands import batch_memory, continual
from tf_finetune.commands.resume import EarlierRun
from tf_finetune.config import ClassWeights, ExperimentConfig, ProblemType
from tf_finetune.data import brief_check, sources
from tf_finetune.data.examples import Examples
from tf_finetune.errors import InputError
from tf_finetune.evaluation.metrics import SCORES
from tf_finetune.native import compiled

# The checkpoint of the smoke config: written on the spot, because nothing pretrained is that small.
RANDOM_TINY = "random-tiny"


@dataclasses.dataclass(frozen=True)
class Inputs:
    """What a run starts from.

    Attributes:
        config: every place in it pinned: absolute paths, the hub's commits, dataset versions.
        splits: the labelled texts.
        replayed: examples of the run that model.checkpoint comes from, to be trained on, too.
        checkpoint: the folder of the pretrained model, or of the earlier run's checkpoint; None means random-tiny.
        earlier: the run that is gone on with, if one is.
    """

    config: ExperimentConfig
    splits: sources.Splits
    checkpoint: Path | None
    earlier: EarlierRun | None = None
    replayed: Examples | None = None


def gather(config: ExperimentConfig, earlier: EarlierRun | None = None) -> Inputs:
    """Finds and reads everything the config names; what is not on this machine is fetched.

    Args:
        config: of the run to come.
        earlier: the run that is gone on with, if one is; its config takes the place of the other.

    Raises:
        InputError: something is missing, or does not fit the rest.
    """
    config = earlier.config if earlier else config
    if not earlier:  # a budget of tokens is reckoned once
        batch_memory.check_known(config)
    print(settings.to_text(config), flush=True)
    if config.runtime.compiled:
        compiled.start()
    place = config.model.checkpoint if earlier else _pinned_checkpoint(config)
    splits = _splits(config, str(earlier.checkpoint) if earlier and continual.is_of_run(place) else place)
    if not earlier:
        config = settings.with_places(config, splits.source, place)
    if "train" not in splits.examples:
        raise InputError(
            "nothing to train on", where=config.data.source, expected="a train split", got=", ".join(splits.examples)
        )
    for note in splits.notes:
        runtime.say(f"note: {note}")
    for line in brief_check.lines(splits.examples, splits.label_names, splits.problem_type):
        runtime.say(line)
    _check_class_weights(config, splits.problem_type)
    _check_label_smoothing(config, splits.problem_type)
    _check_best_metric(config, splits.problem_type)
    checkpoint = earlier.checkpoint if earlier else None
    if checkpoint is None and config.model.checkpoint != RANDOM_TINY:
        checkpoint = pretrained.local_checkpoint(config.model.checkpoint)
        _check_max_length(config.data.max_length, BertArchitecture.from_folder(checkpoint))
    return Inputs(config, splits, checkpoint, earlier, continual.replayed(config, splits))


def _splits(config: ExperimentConfig, checkpoint: str) -> sources.Splits:
    """The data, with the labels that the checkpoint's run knew where they are enough."""
    options = settings.source_options(config)
    if known := continual.known_labels(checkpoint):
        with contextlib.suppress(InputError):  # other labels, or whatever comes again below
            return sources.load(**options, label_names=known)
    return sources.load(**options)


def _pinned_checkpoint(config: ExperimentConfig) -> str:
    name = continual.checkpoint_of(config.model.checkpoint)
    return name if name == RANDOM_TINY else pretrained.pinned(name)


def _check_class_weights(config: ExperimentConfig, problem_type: ProblemType) -> None:
    if (
        config.train.class_weights is not ClassWeights.NONE
        and problem_type is not ProblemType.SINGLE_LABEL_CLASSIFICATION
    ):
        expected, got = "labels that are one class a text", problem_type.value
        raise InputError("no class weights for these labels", where="train.class_weights", expected=expected, got=got)


def _check_label_smoothing(config: ExperimentConfig, problem_type: ProblemType) -> None:
    if (got := config.train.label_smoothing) and problem_type is ProblemType.REGRESSION:
        expected = "0, as labels that are numbers have no classes to share out among"
        raise InputError("no label smoothing here", where="train.label_smoothing", expected=expected, got=got)


def _check_best_metric(config: ExperimentConfig, problem_type: ProblemType) -> None:
    if (name := config.train.best_metric) and name not in SCORES[problem_type]:
        expected = " or ".join(sorted(SCORES[problem_type]))
        raise InputError("no such metric in validation", where="train.best_metric", expected=expected, got=name)


def _check_max_length(max_length: int, architecture: BertArchitecture) -> None:
    longest = architecture.max_position_embeddings
    if max_length > longest:
        raise InputError(
            "texts would be longer than the checkpoint's positions",
            where="data.max_length",
            expected=f"at most {longest}",
            got=max_length,
        )

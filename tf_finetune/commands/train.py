"""`tf-finetune train`: a checkpoint and labelled text in, the best fine-tuned checkpoint out."""

import dataclasses
import shlex
from pathlib import Path
from typing import Any

from tf_finetune import pretrained, runtime, settings
from tf_finetune.bert.architecture import BertArchitecture
from tf_finetune.commands import batch_memory
from tf_finetune.config import ClassWeights, ExperimentConfig, ProblemType
from tf_finetune.data import brief_check, sources
from tf_finetune.errors import InputError
from tf_finetune.evaluation.metrics import headline
from tf_finetune.native import compiled
from tf_finetune.workdir import Workdir

# The checkpoint of the smoke config: written on the spot, because nothing pretrained is that small.
RANDOM_TINY = "random-tiny"


@dataclasses.dataclass(frozen=True)
class Inputs:
    """What a run starts from, found whole before TensorFlow is imported.

    Attributes:
        config: every place in it pinned: absolute paths, the hub's commits, dataset versions.
        splits: the labelled texts.
        checkpoint: the folder of the pretrained model; None means random-tiny.
    """

    config: ExperimentConfig
    splits: sources.Splits
    checkpoint: Path | None


def train(config: ExperimentConfig, workdir: str | Path, *, restart: bool = False) -> dict[str, Any]:
    """Fine-tunes a classifier and keeps the checkpoint with the best validation accuracy.

    Args:
        config: what to train, on what, how.
        workdir: where the run is kept; made when it is not there.
        restart: remove an earlier run from the workdir and start over.

    Returns:
        The content of best.json: checkpoint, epoch, step, validation metrics, and the budget of tokens if there is one.

    Raises:
        InputError: a value, file or folder is not usable; the workdir then holds what it held before.
        RunError: the loss is not finite, or there is too little memory.
    """
    run = Workdir(workdir)
    inputs = gather(config, run, restart=restart)
    runtime.import_tensorflow_quietly()
    from tf_finetune.commands.fit import fit

    best = fit(inputs.config, inputs.splits, inputs.checkpoint, run, restart=restart)
    _say_what_is_where(run, best)
    return best


def gather(config: ExperimentConfig, run: Workdir, *, restart: bool) -> Inputs:
    """Finds and reads everything the config names; what is not on this machine is fetched.

    Args:
        config: of the run to come.
        run: where it will be kept; whether it can be is checked, and nothing is written there.
        restart: whether an earlier run there may be replaced.

    Raises:
        InputError: something is missing, or does not fit the rest.
    """
    runtime.check_backend()
    run.check_free(settings.to_dict(settings.validated(config)), restart=restart)
    batch_memory.check_known(config)
    print(settings.to_text(config), flush=True)
    if config.runtime.compiled:
        compiled.start()
    splits = sources.load(**settings.source_options(config))
    config = settings.with_places(config, splits.source, _pinned_checkpoint(config))
    if "train" not in splits.examples:
        raise InputError(
            "nothing to train on", where=config.data.source, expected="a train split", got=", ".join(splits.examples)
        )
    for note in splits.notes:
        runtime.say(f"note: {note}")
    for line in brief_check.lines(splits.examples, splits.label_names, splits.problem_type):
        runtime.say(line)
    _check_class_weights(config, splits.problem_type)
    checkpoint = None
    if config.model.checkpoint != RANDOM_TINY:
        checkpoint = pretrained.local_checkpoint(config.model.checkpoint)
        _check_max_length(config.data.max_length, BertArchitecture.from_folder(checkpoint))
    return Inputs(config, splits, checkpoint)


def _pinned_checkpoint(config: ExperimentConfig) -> str:
    name = config.model.checkpoint
    return name if name == RANDOM_TINY else pretrained.pinned(name)


def _check_class_weights(config: ExperimentConfig, problem_type: ProblemType) -> None:
    if (
        config.train.class_weights is not ClassWeights.NONE
        and problem_type is not ProblemType.SINGLE_LABEL_CLASSIFICATION
    ):
        expected, got = "labels that are one class a text", problem_type.value
        raise InputError("no class weights for these labels", where="train.class_weights", expected=expected, got=got)


def _check_max_length(max_length: int, architecture: BertArchitecture) -> None:
    longest = architecture.max_position_embeddings
    if max_length > longest:
        raise InputError(
            "texts would be longer than the checkpoint's positions",
            where="data.max_length",
            expected=f"at most {longest}",
            got=max_length,
        )


def _say_what_is_where(run: Workdir, best: dict[str, Any]) -> None:
    score, epoch = headline(best["validation"]), best["epoch"] + 1
    print(f"best validation {score} at epoch {epoch}, kept in {run.checkpoints / best['checkpoint']}")
    print(f"curves: {run.metrics}, and for TensorBoard {run.tensorboard}")
    print("next:")
    flag = f"--workdir={shlex.quote(str(run.path))}"
    for command in ("evaluate", "predict", "export"):
        print(f"  tf-finetune {command} {flag}{' TEXT ...' if command == 'predict' else ''}", flush=True)

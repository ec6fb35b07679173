"""A checkpoint: a Hugging Face model folder, the exact state of training beside it, and a manifest of both."""

import contextlib
import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from tf_finetune import json_files, workdir
from tf_finetune.errors import InputError, RunError

# Of training_state.json and .safetensors; another one is refused by its number.
FORMAT = 1

START_OVER = "--restart to start over, or a new --workdir"

all_of = workdir.checkpoint_folders


class OtherFormatError(InputError):
    """A checkpoint of a version that this one does not go on from."""


@dataclasses.dataclass(frozen=True)
class TrainingState:
    """How far a run has come.

    Attributes:
        epoch: the one at work, from 0; the number of epochs once all are done.
        batch: how many of its batches are done.
        step: optimizer steps of the whole run.
        validation: the metrics of the weights of this step; empty where they have not been validated.
        best: the content of best.json; empty before the first validation.
        validations_since_best: how many there were without a better score.
        metrics_bytes: how long metrics.jsonl was.
        batch_tokens: the budget of tokens in use; -1 where there is none.
        data: what training has seen: by split `{"examples", "sha256"}`, and what its labels are.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    validation: dict[str, float] = dataclasses.field(default_factory=dict)
    best: dict[str, Any] = dataclasses.field(default_factory=dict)
    validations_since_best: int = 0
    metrics_bytes: int = 0
    batch_tokens: int = -1
    data: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def name(self) -> str:
        return name_of(self.step)

    @property
    def epoch_of_weights(self) -> int:
        """The epoch of the last step: at the end of one, `epoch` is the next already."""
        return self.epoch if self.batch else self.epoch - 1

    def as_best(self) -> dict[str, Any]:
        """What best.json says if the weights of this step are the best; empty where they have not been validated."""
        if not self.validation:
            return {}
        found = {
            "checkpoint": self.name,
            "epoch": self.epoch_of_weights,
            "step": self.step,
            "validation": self.validation,
        }
        return found | ({"batch_tokens": self.batch_tokens} if self.batch_tokens > 0 else {})


def name_of(step: int) -> str:
    """What the checkpoint of a step is called."""
    return f"step_{step:08d}"


def save(
    model,
    tokenizer,
    checkpoints: Path,
    state: TrainingState,
    arrays: Mapping[str, np.ndarray],
    **facts: Any,
) -> Path:
    """Writes `checkpoints/step_00000528`: config.json, model.safetensors, tokenizer files, training state, manifest.

    One of the same step is replaced: the run has validated its weights meanwhile.

    Args:
        model, tokenizer: what has a `save_pretrained`.
        checkpoints: the folder of all of them.
        state: how far the run has come.
        arrays: what `state.arrays_of` gave.
        **facts: for the manifest.

    Returns:
        The folder.

    Raises:
        RunError: it cannot be written; those of other steps are as they were.
    """
    target = checkpoints / state.name
    try:
        with workdir.published_folder(target, replace=True) as folder:
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
            save_file(dict(arrays), folder / workdir.STATE_TENSORS)
            json_files.write(folder / workdir.STATE, {"format": FORMAT, **dataclasses.asdict(state)})
            workdir.write_manifest(folder, **facts)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        kept = what_is_kept(checkpoints)
        raise RunError(f"the checkpoint {target} cannot be written: {reason}; {kept}") from error
    return target


def what_is_kept(checkpoints: Path) -> str:
    """The words for what a run that ended can go on from."""
    folders = all_of(checkpoints)
    return f"{folders[-1].name} is kept, and training can go on from it" if folders else "none was kept before it"


def newest(checkpoints: Path, *, warn: Callable[[str], None]) -> tuple[Path, TrainingState, dict[str, Any]] | None:
    """The last checkpoint that is whole, its state and its manifest; None without one.

    The best one that it names has to be whole, too. Where that holds for none, the last one goes on without: the best
    is then the best from there on.

    Args:
        checkpoints: the folder of all of them.
        warn: told of each damaged one that is passed over.

    Raises:
        OtherFormatError: it was written by a version that this one does not go on from.
    """
    without_best = None
    for folder in reversed(all_of(checkpoints)):
        try:
            manifest = workdir.check_manifest(folder)
            state = _state_in(folder, manifest)
        except OtherFormatError:
            raise
        except (InputError, KeyError, TypeError) as error:
            warn(f"the checkpoint {folder.name} is damaged and passed over: {error}")
            continue
        try:
            if state.best:
                workdir.check_manifest(checkpoints / state.best["checkpoint"], without=workdir.TRAINING_STATE)
            return folder, state, manifest
        except InputError as error:
            warn(f"the checkpoint {folder.name} is whole, but the best one before it is damaged: {error}")
            state = dataclasses.replace(state, best=state.as_best(), validations_since_best=0)
            without_best = without_best or (folder, state, manifest)
    if without_best:
        warn(f"going on from {without_best[0].name} all the same: the best is now the best from there on")
    return without_best


def arrays_in(folder: Path) -> dict[str, np.ndarray]:
    """The arrays that `save` was given."""
    return load_file(folder / workdir.STATE_TENSORS)


def _state_in(folder: Path, manifest: dict[str, Any]) -> TrainingState:
    content = json_files.read_object(folder / workdir.STATE) if workdir.STATE in manifest["files"] else {}
    written = content.pop("format", None)
    if written != FORMAT:
        got = "one without a training state, of an earlier version" if written is None else f"format {written}"
        raise OtherFormatError(
            "this version cannot go on from the checkpoint",
            where=folder,
            expected=f"format {FORMAT}; {START_OVER}",
            got=got,
        )
    return TrainingState(**content)


def prune(checkpoints: Path, *, last: int) -> None:
    """Removes every checkpoint but the last ones and those that these call the best: each may be gone on from."""
    folders = all_of(checkpoints)
    best = {_best_of(folder) for folder in folders[-last:]}
    for folder in folders[:-last]:
        if folder.name not in best:
            workdir.remove_folder(folder)


def remove_later(checkpoints: Path, folder: Path) -> None:
    """Removes the checkpoints after one that is gone on from, as they are damaged."""
    folders = all_of(checkpoints)
    for later in folders[folders.index(folder) + 1 :]:
        workdir.remove_folder(later)


def _best_of(folder: Path) -> str | None:
    with contextlib.suppress(InputError, AttributeError):
        return json_files.read_object(folder / workdir.STATE).get("best", {}).get("checkpoint")
    return None

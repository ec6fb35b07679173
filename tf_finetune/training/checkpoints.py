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


class OtherFormatError(InputError):
    """A checkpoint of a version that this one does not go on from."""


@dataclasses.dataclass(frozen=True)
class TrainingState:
    """How far a run has come.

    Attributes:
        epoch: the one at work, from 0; the number of epochs once all are done.
        batch: how many of its batches are done.
        step: optimizer steps of the whole run.
        is_validated: whether the weights of this step have been.
        best: the content of best.json; empty before the first validation.
        validations_since_best: how many there were without a better score.
        metrics_bytes: how long metrics.jsonl was.
        batch_tokens: the budget of tokens in use; -1 where there is none.
        data: what training has seen: by split `{"examples", "sha256"}`, and what its labels are.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    is_validated: bool = True
    best: dict[str, Any] = dataclasses.field(default_factory=dict)
    validations_since_best: int = 0
    metrics_bytes: int = 0
    batch_tokens: int = -1
    data: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def name(self) -> str:
        return name_of(self.step)


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
        before = [path.name for path in all_of(checkpoints)]
        kept = f"{before[-1]} is kept, and training can go on from it" if before else "none was kept before it"
        reason = getattr(error, "strerror", None) or error
        raise RunError(f"the checkpoint {target} cannot be written: {reason}; {kept}") from error
    return target


def all_of(checkpoints: Path) -> list[Path]:
    """The folders, the earliest first."""
    return sorted(checkpoints.glob("step_*"), key=lambda folder: (len(folder.name), folder.name))


def newest(checkpoints: Path, *, warn: Callable[[str], None]) -> tuple[Path, TrainingState, dict[str, Any]] | None:
    """The last checkpoint that is whole, as is the best one before it, its state and its manifest; None without one.

    Args:
        checkpoints: the folder of all of them.
        warn: told of each damaged one that is passed over.

    Raises:
        OtherFormatError: it was written by a version that this one does not go on from.
    """
    for folder in reversed(all_of(checkpoints)):
        try:
            manifest = workdir.check_manifest(folder)
            state = _state_in(folder, manifest)
            if state.best:
                workdir.check_manifest(checkpoints / state.best["checkpoint"], without=workdir.TRAINING_STATE)
            return folder, state, manifest
        except OtherFormatError:
            raise
        except (InputError, KeyError, TypeError) as error:
            warn(f"the checkpoint {folder.name} is damaged and passed over: {error}")
    return None


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
            expected=f"format {FORMAT}; --restart to start over, or a new --workdir",
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

"""Which example is in which split: 80/10/10 by hash, a validation split out of train, and draws of a few."""

import dataclasses
import itertools
import random
import warnings
from collections.abc import Callable

import numpy as np

from tf_finetune.data.store import Rows
from tf_finetune.errors import InputError
from tf_finetune.readers.rows import WHOLE

ORDER = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True, eq=False)
class Part:
    """Some rows of a file on disk.

    Attributes:
        rows: of the file.
        indices: int64 [examples], which of them, in order.
    """

    rows: Rows
    indices: np.ndarray

    def __len__(self) -> int:
        return len(self.indices)

    def take(self, positions: np.ndarray) -> "Part":
        """Those at these positions, or where a mask is true."""
        return Part(self.rows, self.indices[positions])


def named_splits(stored: dict[str, Rows], source: str) -> dict[str, Part]:
    """The splits a source names, or 80/10/10 by the text alone where it names none.

    Raises:
        InputError: a split is empty.
    """
    if WHOLE in stored:
        rows = stored[WHOLE]
        tenths = rows.tenths
        chosen = {"train": tenths > 1, "validation": tenths == 1, "test": tenths == 0}
        parts = {split: Part(rows, np.flatnonzero(mask)) for split, mask in chosen.items()}
    else:
        parts = {split: Part(rows, np.arange(len(rows))) for split, rows in stored.items()}
    refuse_empty(parts, source)
    return {split: parts[split] for split in ORDER if split in parts}


def refuse_empty(parts: dict[str, Part], source: str) -> None:
    """Refuses a split without rows.

    Raises:
        InputError: there is one.
    """
    for split, part in parts.items():
        if not len(part):
            expected = "at least one example a split; a file of few rows cannot be split 80/10/10"
            raise InputError(f"the {split} split is empty", where=source, expected=expected)


def drawn(part: Part, max_examples: int, seed: int) -> Part:
    """At most so many rows, drawn by seed; 0 means all."""
    if not 0 < max_examples < len(part):
        return part
    return part.take(np.array(random.Random(seed).sample(range(len(part)), max_examples)))


def with_validation(
    parts: dict[str, Part], source: str, *, validation_examples: int, max_examples: int, seed: int
) -> dict[str, Part]:
    """Draws examples of each split, and takes a validation split out of train where there is none.

    Raises:
        InputError: `validation_examples` is too many, or the source has a validation split already.
    """
    few = {split: drawn(part, max_examples, seed) for split, part in parts.items()}
    if "train" not in parts:
        return few
    train, field = few["train"], "data.validation_examples"
    if "validation" in parts:
        if validation_examples:
            what = f"the validation split of {source} is fixed already"
            raise InputError(what, where=field, expected=0, got=validation_examples)
        return few
    if validation_examples >= len(train):
        expected = f"fewer than the {len(train)} training examples"
        raise InputError("too many validation examples", where=field, expected=expected, got=validation_examples)
    hashes = train.rows.hashes[train.indices]
    if validation_examples:
        held = lowest(hashes, validation_examples)
    elif len(train) < len(parts["train"]):
        held = lowest(hashes, max(1, len(train) // 10))
    else:
        held = train.rows.tenths[train.indices] == 1
    few |= {"train": train.take(~held), "validation": train.take(held)}
    refuse_empty(few, source)
    return {split: few[split] for split in ORDER if split in few}


def with_fold(
    parts: dict[str, Part],
    labels_of: Callable[[Part], np.ndarray],
    source: str,
    *,
    folds: int,
    fold: int,
    seed: int,
) -> dict[str, Part]:
    """The same splits, but that the test split is one fold of train, and train all the others.

    Rows of the same text are in the same fold. Classes are shared out alike (of a text with several, the first one
    counts); labels that are no classes are not.

    Args:
        parts: by split.
        labels_of: the labels of some rows.
        source: for messages.
        folds: how many.
        fold: which one, from 0.
        seed: shuffles the texts.

    Raises:
        InputError: no train split, or fewer texts than folds, in all or of every class.
    """
    from sklearn import model_selection

    if "train" not in parts:
        raise InputError("no folds without a train split", where=source, got=", ".join(parts))
    train, field = parts["train"], "data.folds"
    texts, first, text_of_row = np.unique(train.rows.hashes[train.indices], return_index=True, return_inverse=True)
    if len(texts) < folds:
        raise InputError("more folds than texts", where=field, expected=f"at most {len(texts)}", got=folds)
    labels = labels_of(train)[first]
    is_class = labels.ndim == 1 and labels.dtype.kind == "i"
    splitter = model_selection.StratifiedKFold if is_class else model_selection.KFold
    if is_class and (most := np.bincount(labels).max()) < folds:
        raise InputError("more folds than texts of any class", where=field, expected=f"at most {most}", got=folds)
    with warnings.catch_warnings():  # of classes with fewer texts than folds, which some folds then lack
        warnings.simplefilter("ignore")
        shared_out = splitter(folds, shuffle=True, random_state=seed).split(texts, labels if is_class else None)
        _, held = next(itertools.islice(shared_out, fold, None))
    is_held = np.isin(text_of_row, held)
    return {**parts, "train": train.take(~is_held), "test": train.take(is_held)}


def lowest(hashes: np.ndarray, number: int) -> np.ndarray:
    """Which are the `number` rows of the lowest hashes; fewer where that would part rows of the same text.

    Hash by hash from the lowest, all rows of one are taken if that many are still wanted.

    Args:
        hashes: uint64 [rows]; texts of the same hash are the same text.
        number: of rows.

    Returns:
        bool [rows].
    """
    order = np.argsort(hashes, kind="stable")
    starts = np.flatnonzero(np.diff(hashes[order], prepend=~hashes[order[:1]]))  # of each run of one hash
    copies = np.diff(starts, append=len(order))
    taken = np.zeros(len(starts), bool)
    text = 0
    while number and text < len(starts):
        fitting = text + np.flatnonzero(copies[text:] <= number)
        fitting = fitting[: np.searchsorted(np.cumsum(copies[fitting]), number, side="right")]
        taken[fitting] = True
        number -= int(copies[fitting].sum())
        text = fitting[-1] + 1 if len(fitting) else len(starts)
    held = np.zeros(len(order), bool)
    held[order[np.repeat(taken, copies)]] = True
    return held

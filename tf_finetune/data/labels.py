"""What the labels of a source are, one class a text, several, or a number; and their values as arrays."""

import dataclasses
from collections.abc import Iterable, Sequence
from decimal import Decimal

import numpy as np

from tf_finetune.config import ProblemType
from tf_finetune.data import label_columns
from tf_finetune.data.label_columns import Named
from tf_finetune.data.splitting import Part
from tf_finetune.data.store import Rows
from tf_finetune.errors import InputError
from tf_finetune.readers.rows import NUMBER, fractions_in

# What the one output of a regression is called.
REGRESSION_NAMES = ("score",)


@dataclasses.dataclass(frozen=True, eq=False)
class Labels:
    """The labels of a source.

    Attributes:
        problem_type: never AUTO.
        names: of the classes in order, or of the one number.
        columns: the labels of each file: classes, or float32 [rows].
    """

    problem_type: ProblemType
    names: tuple[str, ...]
    columns: dict[Rows, Named | np.ndarray]

    def values(self, part: Part) -> np.ndarray:
        """int64 [examples] indices into `names`, float32 [examples], or float32 [examples, names] of 0 and 1."""
        column = self.columns[part.rows]
        if self.problem_type is ProblemType.REGRESSION:
            return column[part.indices]
        index = {name: position for position, name in enumerate(self.names)}
        positions = np.array([index.get(name, -1) for name in column.names], np.int64)
        codes, counts = column.codes_of(part.indices)
        if self.problem_type is ProblemType.SINGLE_LABEL_CLASSIFICATION:
            return positions[codes]
        hot = np.zeros((len(part), len(self.names)), np.float32)
        hot[np.repeat(np.arange(len(part)), counts), positions[codes]] = 1
        return hot


def of_splits(
    parts: dict[str, Part], problem_type: ProblemType, *, label_names: tuple[str, ...] | None, source: str
) -> Labels:
    """The labels of all splits, checked.

    Args:
        parts: by split, before anything is drawn.
        problem_type: AUTO is multi-label where the labels are lists, else one class a text.
        label_names: the classes in order, where a trained model has fixed them; None means those of train.
        source: for messages.

    Raises:
        InputError: a label is not what it should be, is unknown to `label_names` or to train, or there is one
            class only.
    """
    whole = tuple(dict.fromkeys(part.rows for part in parts.values()))
    chosen = resolved(problem_type, whole)
    if chosen is ProblemType.REGRESSION:
        columns = {rows: label_columns.numbers(rows) for rows in whole}
        return Labels(chosen, label_names or REGRESSION_NAMES, columns)
    read = label_columns.single if chosen is ProblemType.SINGLE_LABEL_CLASSIFICATION else label_columns.multiple
    columns = {rows: read(rows) for rows in whole}
    if not label_names:
        counted = [parts["train"]] if "train" in parts else parts.values()
        found = _found(counted, columns)
        if problem_type is not ProblemType.SINGLE_LABEL_CLASSIFICATION:
            _refuse_fractions(found, source, chosen)
        label_names = _in_order(found, source, fewest=2 if chosen is ProblemType.SINGLE_LABEL_CLASSIFICATION else 1)
    for split, part in parts.items():
        _refuse_unknown(part, columns[part.rows], label_names, split)
    return Labels(chosen, label_names, columns)


def resolved(problem_type: ProblemType, whole: Iterable[Rows]) -> ProblemType:
    """What AUTO stands for.

    Raises:
        InputError: some labels are lists and some are not.
    """
    if problem_type is not ProblemType.AUTO:
        return problem_type
    if all(rows.table["labels"].null_count == len(rows) for rows in whole):
        return ProblemType.SINGLE_LABEL_CLASSIFICATION
    for rows in whole:
        plain = np.flatnonzero(rows.table["labels"].is_null().to_numpy())
        if len(plain):
            got = repr(rows.table["label"][int(plain[0])].as_py())
            what, expected = "a label is no list and others are", "lists alone, or names alone"
            raise InputError(what, where=rows.place(plain[0]), expected=expected, got=got)
    return ProblemType.MULTI_LABEL_CLASSIFICATION


def _found(parts: Iterable[Part], columns: dict[Rows, Named]) -> set[str]:
    """The names of the classes that some rows have."""
    found: set[str] = set()
    for part in parts:
        column = columns[part.rows]
        counts = np.bincount(column.codes_of(part.indices)[0], minlength=len(column.names))
        found |= {name for name, count in zip(column.names, counts, strict=True) if count}
    return found


def _refuse_fractions(found: set[str], source: str, chosen: ProblemType) -> None:
    if fractions := fractions_in(found):
        expected = "classes: names or whole numbers"
        if chosen is ProblemType.SINGLE_LABEL_CLASSIFICATION:
            expected += "; numbers need --config.model.problem_type=regression"
        raise InputError("labels are fractional numbers", where=source, expected=expected, got=repr(fractions[0]))


def _in_order(found: set[str], source: str, *, fewest: int) -> tuple[str, ...]:
    """Numbers by their size, names by the alphabet."""
    order = sorted(found)
    if len(order) < fewest:
        what = f"only {'one class' if order else 'texts of no class'} in the training data"
        expected = "two or more labels" if fewest == 2 else "one or more labels"
        raise InputError(what, where=source, expected=expected, got=", ".join(order) or "none")
    if all(NUMBER.fullmatch(name) for name in order):
        order.sort(key=Decimal)  # after the first sort: 1 and 01 tie
    return tuple(order)


def _refuse_unknown(part: Part, column: Named, label_names: Sequence[str], split: str) -> None:
    unknown = np.array([name not in label_names for name in column.names], bool)
    if not unknown.any():
        return
    codes, counts = column.codes_of(part.indices)
    wrong = np.flatnonzero(unknown[codes])
    if len(wrong):
        row = np.searchsorted(np.cumsum(counts), wrong[0], side="right")
        what, expected = f"a label of the {split} split is unknown", " or ".join(label_names[:20])
        got = repr(column.names[codes[wrong[0]]])
        raise InputError(what, where=part.rows.place(part.indices[row]), expected=expected, got=got)

"""The labels of rows on disk, a piece at a time, as numbers or as classes by number."""

import contextlib
import dataclasses

import numpy as np
import pyarrow as pa

from tf_finetune.data.store import Rows, numbers_of
from tf_finetune.errors import InputError
from tf_finetune.readers.rows import classes_in


@dataclasses.dataclass(frozen=True, eq=False)
class Named:
    """The classes of rows by number: those of row i are `codes[starts[i] : starts[i + 1]]`.

    Attributes:
        names: in the order they came.
        codes: int32 [all classes of all rows].
        starts: int64 [rows + 1].
    """

    names: tuple[str, ...]
    codes: np.ndarray
    starts: np.ndarray

    def codes_of(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The codes of some rows' classes end to end, and how many each row has."""
        counts = self.starts[indices + 1] - self.starts[indices]
        shifts = np.repeat(self.starts[indices] - (np.cumsum(counts) - counts), counts)
        return self.codes[shifts + np.arange(len(shifts))], counts


NUMBER = "a number, in the column that data.label_column names"


def numbers(rows: Rows) -> np.ndarray:
    """The labels as float32 [rows].

    Raises:
        InputError: one is no number.
    """
    values = np.concatenate([np.zeros(0, np.float32), *(_cast(chunk) for chunk in rows.table["label"].chunks)])
    wrong = np.flatnonzero(~np.isfinite(values))
    if len(wrong):
        got = rows.table["label"][int(wrong[0])].as_py() or rows.table["labels"][int(wrong[0])].as_py()
        raise InputError("a label is not a number", where=rows.place(wrong[0]), expected=NUMBER, got=repr(got))
    return values


def _cast(chunk: pa.Array) -> np.ndarray:
    """Numbers as float32, what is none as NaN."""
    values = None
    if not chunk.null_count:
        with contextlib.suppress(pa.ArrowInvalid):  # something is no number to pyarrow
            values = numbers_of(chunk.cast(pa.float64()), np.float64)
    if values is None:
        values = np.array([_number(text) for text in chunk.to_pylist()])
    with np.errstate(over="ignore"):  # too large is infinite, and refused for that
        return values.astype(np.float32)


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return np.nan


def single(rows: Rows) -> Named:
    """One class a row.

    Raises:
        InputError: a row has none, or a list.
    """
    names: dict[str, int] = {}
    pieces = [np.zeros(0, np.int32)]
    for chunk in rows.table["label"].chunks:
        first = sum(map(len, pieces))
        if chunk.null_count:
            raise _not_one("a label is a list", rows, first + chunk.to_pylist().index(None))
        encoded = chunk.dictionary_encode()
        classes = encoded.dictionary.to_pylist()
        if "" in classes:
            raise _not_one("a label is missing", rows, first + chunk.to_pylist().index(""))
        codes = np.array([names.setdefault(name, len(names)) for name in classes], np.int32)
        pieces.append(codes[numbers_of(encoded.indices, np.int32)])
    codes = np.concatenate(pieces)
    return Named(tuple(names), codes, np.arange(len(codes) + 1))


def _not_one(what: str, rows: Rows, index: int) -> InputError:
    expected = "one class, or --config.model.problem_type=multi_label_classification"
    return InputError(what, where=rows.place(index), expected=expected)


def multiple(rows: Rows) -> Named:
    """Any number of classes a row: a list, or a cell with a JSON list or with names and commas between them.

    Raises:
        InputError: a cell is neither.
    """
    names: dict[str, int] = {}
    codes, counts = [np.zeros(0, np.int32)], [np.zeros(0, np.int64)]
    first = 0
    for cells, lists in zip(rows.table["label"].chunks, rows.table["labels"].chunks, strict=True):
        kept: dict[str, tuple[str, ...]] = {}
        classes = []
        for index, (cell, listed) in enumerate(zip(cells.to_pylist(), lists.to_pylist(), strict=True), first):
            if listed is None and cell not in kept:
                kept[cell] = classes_in(cell, rows.place(index))
            classes.append(dict.fromkeys(kept[cell] if listed is None else listed))
        codes.append(np.array([names.setdefault(n, len(names)) for each in classes for n in each], np.int32))
        counts.append(np.array([len(each) for each in classes], np.int64))
        first += len(classes)
    starts = np.concatenate([[0], np.cumsum(np.concatenate(counts))])
    return Named(tuple(names), np.concatenate(codes), starts)

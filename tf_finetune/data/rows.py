"""What every reader of a source gives: rows by split. And which values can be a text or a label."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import NamedTuple

from tf_finetune.errors import InputError

SPLIT_NAMES = {
    "train": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
}
# Stands for a split's name where a source has rows and no splits.
WHOLE = "whole"

# The name of a class, the names of several (multi-label), or a number's text (regression).
Label = str | tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Columns:
    """Which columns of a table or dataset to read; "" stands for one that is not there."""

    text: str = "text"
    label: str = "label"
    text_pair: str = ""
    weight: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """Those that are there."""
        return tuple(name for name in (self.text, self.label, self.text_pair, self.weight) if name)


class Row(NamedTuple):
    """One labelled text, or pair of texts.

    Attributes:
        text: what is classified.
        label: as the source has it.
        text_pair: the second text, where there is one.
        weight: how much the example counts in training.
        where: its file and line, for messages.
    """

    text: str
    label: Label
    text_pair: str | None = None
    weight: float = 1.0
    where: str = ""


# What to do about a row that cannot be used: `refuse` it all, or collect what is wrong and skip the row.
OnFault = Callable[[InputError], None]
# Reads the rows of a split, each time anew and as they are needed.
Reader = Callable[[OnFault], Iterator[Row]]


def refuse(error: InputError) -> None:
    """The OnFault that lets nothing pass."""
    raise error


@dataclasses.dataclass(frozen=True)
class Found:
    """What a source holds, before anything is split or drawn.

    Attributes:
        splits: readers of "train", "validation" and "test", each only if there; or one of all rows under WHOLE.
        notes: what was left out, a sentence each.
    """

    splits: dict[str, Reader]
    notes: tuple[str, ...] = ()


def text_of(value: object, where: object) -> str:
    """The value of a text column as a text.

    Raises:
        InputError: it is no string, or bytes that are not UTF-8.
    """
    if isinstance(value, bytes):
        return _decoded(value, where)
    if not isinstance(value, str):
        raise InputError("a text is not a string", where=where, got="nothing" if value is None else repr(value)[:60])
    return value


def label_of(value: object, where: object) -> str:
    """The value of a label column as the name of a class: true as "true", 1 as "1", 1.0 as "1.0".

    Raises:
        InputError: it is missing, or neither a name nor a number.
    """
    if isinstance(value, bytes):
        value = _decoded(value, where)
    if value is None or value != value or (isinstance(value, str) and not value.strip()):  # NaN is not itself
        raise InputError("a label is missing", where=where)
    if not isinstance(value, str | bool | int | float):
        expected = "a name or a whole number"
        raise InputError("a label is not usable", where=where, expected=expected, got=repr(value)[:60])
    return str(value).lower() if isinstance(value, bool) else str(value).strip()


def _decoded(value: bytes, where: object) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError as error:
        raise not_utf8(error, where) from None


def not_utf8(error: UnicodeDecodeError, where: object) -> InputError:
    """What to raise for bytes that are no text."""
    return InputError("text is not UTF-8", where=where, got=f"byte {error.object[error.start]:#04x}")


def refuse_columns(source: object, text_column: str, label_column: str) -> None:
    """Refuses column names for a source that has no columns.

    Raises:
        InputError: one was given.
    """
    for field, given, default in (("text", text_column, "text"), ("label", label_column, "label")):
        if given != default:
            what = f"{source} has no columns to choose from"
            raise InputError(what, where=f"data.{field}_column", expected=repr(default), got=repr(given))


def no_such_column(column: str, where: object, columns: object, *, hint: str = "") -> InputError:
    """What to raise for a column that is not among `columns`."""
    got = ", ".join(columns) or "an empty file"
    return InputError("no such column", where=where, expected=f"a column {column!r}{hint}", got=got)

"""What every reader of a source gives: rows by split. And which values can be a text or a label."""

import dataclasses
import json
import math
import re
import struct
from collections.abc import Callable, Collection, Iterator, Sequence
from decimal import Decimal
from typing import NamedTuple

from tf_finetune.config import ProblemType
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

# A name that is a number, by which classes are put in order.
NUMBER = re.compile(r"-?(\d+\.?\d*|\.\d+)([eE][-+]?\d{1,3})?")

# The name of a class, the names of several (multi-label), or a number's text (regression).
Label = str | tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Columns:
    """Which columns of a table or dataset to read; "" stands for one that is not there."""

    text: str = "text"
    label: str = "label"
    text_pair: str = ""
    weight: str = ""
    slices: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Those that are there."""
        return (*(name for name in (self.text, self.label, self.text_pair, self.weight) if name), *self.slices)


TEXT_AND_LABEL = Columns()


class Row(NamedTuple):
    """One labelled text, or pair of texts.

    Attributes:
        text: what is classified.
        label: as the source has it.
        text_pair: the second text, where there is one.
        weight: how much the example counts in training.
        where: its file and line, for messages.
        slices: what the columns say by whose values results are broken down.
    """

    text: str
    label: Label
    text_pair: str | None = None
    weight: float = 1.0
    where: str = ""
    slices: tuple[str, ...] = ()


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
        notes: what was left out, a sentence each. A reader that meets rows without labels adds its sentence when it
            has given its last row, so the notes are complete once every split was read to its end.
    """

    splits: dict[str, Reader]
    notes: list[str] = dataclasses.field(default_factory=list)

    def note(self, sentence: str) -> None:
        """Adds a note, once however often a split is read."""
        if sentence not in self.notes:
            self.notes.append(sentence)


def joined(readers: Sequence[Reader]) -> Reader:
    """One reader of what several give, one after the other."""

    def read(on_fault: OnFault) -> Iterator[Row]:
        for reader in readers:
            yield from reader(on_fault)

    return read


def row_of(columns: Columns, values: Sequence[object], where: str) -> Row:
    """The row that the values of `columns.names` make.

    Raises:
        InputError: a text, label, weight or slice is not usable.
    """
    text, label = text_of(values[0], where), label_of(values[1], where)
    if len(values) == 2:
        return Row(text, label, None, 1.0, where)
    others = iter(values[2:])
    pair = text_of(next(others), where) if columns.text_pair else None
    weight = weight_of(next(others), where) if columns.weight else 1.0
    return Row(text, label, pair, weight, where, tuple(slice_of(value, where) for value in others))


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


def label_of(value: object, where: object) -> Label:
    """The value of a label column as a name: true as "true", 1 as "1", 1.0 as "1.0"; a list as a tuple of names.

    Raises:
        InputError: it is missing, or neither a name, a number nor a list of them.
    """
    if isinstance(value, list | tuple):
        if odd := [item for item in value if isinstance(item, list | tuple)]:
            raise InputError("a label is not usable", where=where, expected="a list of names", got=repr(odd[0])[:60])
        return tuple(dict.fromkeys(_name_of(item, where) for item in value))
    # Nobody knows here yet whether texts have several labels.
    return _name_of(value, where, expected="a label, or [] for none of several")


def _name_of(value: object, where: object, *, expected: str | None = None) -> str:
    if isinstance(value, bytes):
        value = _decoded(value, where)
    if isinstance(value, str):
        name = value.strip()
        if name:
            return name
    if value is None or value != value or isinstance(value, str):  # NaN is not itself
        raise InputError("a label is missing", where=where, expected=expected)
    if not isinstance(value, bool | int | float):
        expected = "a name, a number or a list of names"
        raise InputError("a label is not usable", where=where, expected=expected, got=repr(value)[:60])
    return str(value).lower() if isinstance(value, bool) else str(value)


def weight_of(value: object, where: object) -> float:
    """The value of a weight column.

    Raises:
        InputError: it is no number of 0 or more that float32 can hold.
    """
    try:
        weight = math.nan if value is None or isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        weight = math.nan
    if not (weight >= 0 and _is_float32(weight)):
        got = "nothing" if value is None or value == "" else repr(value)[:60]
        expected = f"a number of 0 or more{' that float32 can hold' if weight > 0 else ''}"
        raise InputError("a weight is not usable", where=where, expected=expected, got=got)
    return weight


def slice_of(value: object, where: object) -> str:
    """The value of a column that results are broken down by, as a name; "" where it is missing.

    Raises:
        InputError: it is a list or the like, or bytes that are not UTF-8.
    """
    if value is None or value != value:  # NaN is not itself
        return ""
    if not isinstance(value, bytes | str | bool | int | float):
        expected = "a name or a number, as data.slice_columns has it"
        raise InputError("a value is not usable", where=where, expected=expected, got=repr(value)[:60])
    if isinstance(value, bytes):
        value = _decoded(value, where)
    return str(value).lower() if isinstance(value, bool) else str(value).strip()


def _decoded(value: bytes, where: object) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError as error:
        raise not_utf8(error, where) from None


def not_utf8(error: UnicodeDecodeError, where: object) -> InputError:
    """What to raise for bytes that are no text."""
    return InputError("text is not UTF-8", where=where, got=f"byte {error.object[error.start]:#04x}")


def utf16(where: object) -> InputError:
    """What to raise for a file that begins as UTF-16 does."""
    return InputError("text is UTF-16", where=where, expected="UTF-8: save the file as that, or convert it with iconv")


def refuse_columns(source: object, columns: Columns) -> None:
    """Refuses column names for a source that has no columns.

    Raises:
        InputError: one was given.
    """
    for field in dataclasses.fields(Columns):
        given = getattr(columns, field.name)
        if given != field.default:
            what = f"{source} has no columns to choose from"
            where = "data.slice_columns" if field.name == "slices" else f"data.{field.name}_column"
            raise InputError(what, where=where, expected=repr(field.default), got=repr(given))


def no_such_column(column: str, where: object, columns: object, *, hint: str = "") -> InputError:
    """What to raise for a column that is not among `columns`."""
    got = ", ".join(map(str, columns)) or "an empty file"
    return InputError("no such column", where=where, expected=f"a column {column!r}{hint}", got=got)


def check_columns(names: Sequence[str], columns: Sequence[str], where: object, *, hint: str = "") -> None:
    """Refuses a table that lacks one of `names` among its columns, or has one twice.

    Raises:
        InputError: it does.
    """
    for name in names:
        if name not in columns:
            raise no_such_column(name, where, columns, hint=hint)
        if (count := list(columns).count(name)) > 1:
            raise InputError("a column is there twice", where=where, expected=f"one {name!r}", got=f"{count} of them")


def classes_of(label: Label, problem_type: ProblemType, where: object) -> tuple[str, ...]:
    """The classes that a label names.

    Raises:
        InputError: it is a cell for several labels, and malformed.
    """
    if not isinstance(label, str):
        return label
    return classes_in(label, where) if problem_type is ProblemType.MULTI_LABEL_CLASSIFICATION else (label,)


def classes_in(cell: str, where: object) -> tuple[str, ...]:
    """The classes in a cell of a table: a JSON list, or names with commas between.

    Raises:
        InputError: it begins like a list and is none, or is a list of other things than names.
    """
    if not cell.lstrip().startswith("["):
        return tuple(dict.fromkeys(name.strip() for name in cell.split(",") if name.strip()))
    try:
        names = json.loads(cell)
    except (ValueError, RecursionError):
        expected = "a JSON list, or names with commas between"
        raise InputError("labels are malformed", where=where, expected=expected, got=cell[:60]) from None
    return label_of(names, where)


def fractions_in(names: Collection[str]) -> list[str]:
    """Those of the classes that are fractions, where all are numbers: such labels are no classes, but amounts."""
    if not all(NUMBER.fullmatch(name) for name in names):
        return []
    return [name for name in sorted(names) if Decimal(name) != Decimal(name).to_integral_value()]


def number_of(label: Label) -> float | None:
    """The number that a label spells; None where it spells none that is finite in float32."""
    try:
        number = float(label)
    except (TypeError, ValueError):
        return None
    return number if _is_float32(number) else None


def _is_float32(number: float) -> bool:
    """Whether it is finite, and still is when rounded to float32."""
    try:
        struct.pack("<f", number)  # "f" alone would make it infinite
    except OverflowError:
        return False
    return math.isfinite(number)

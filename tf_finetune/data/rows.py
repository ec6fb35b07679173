"""What every reader of a source gives: rows by split. And which values can be a text or a label."""

import dataclasses

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

# A text and the name of its label.
Row = tuple[str, str]


@dataclasses.dataclass(frozen=True)
class Found:
    """What a source holds, before anything is split or drawn.

    Attributes:
        splits: rows of "train", "validation" and "test", each only if there; or all of them under WHOLE.
        notes: what was left out, a sentence each.
    """

    splits: dict[str, list[Row]]
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

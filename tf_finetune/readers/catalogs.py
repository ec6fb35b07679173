"""What the Hugging Face hub and TensorFlow Datasets have in common: named splits, and classes by number."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from tf_finetune.errors import InputError
from tf_finetune.readers.rows import SPLIT_NAMES, Columns, Found, OnFault, Reader, Row, joined, row_of

# The values of `Columns.names` as a catalog gives them.
Values = Sequence[object]


def found(
    place: str,
    sizes: Mapping[str, int],
    read: Callable[[str], Iterable[Values]],
    columns: Columns,
    class_names: Sequence[str] | None,
) -> Found:
    """The labelled rows of the splits that are one of ours; what else there is gets a note.

    A split is looked into for a first label at once, and read through for it only where there is none.

    Args:
        place: the dataset, for messages.
        sizes: examples in each split.
        read: the values of a split's rows. A label of None, or -1 of a numbered class, is none.
        columns: what the values are.
        class_names: what the numbers stand for, of lists of them, too; None where labels name themselves.

    Raises:
        InputError: no split has labels.
    """
    result = Found({})
    readers: dict[str, list[Reader]] = {}
    for name, size in sizes.items():
        if name not in SPLIT_NAMES:
            result.note(f"left out: split {name} ({size} examples), which is none of train, validation, test")
        elif not any(_has_label(values, class_names) for values in read(name)):
            result.note(f"left out: all of split {name}'s {size} examples without labels")
        else:
            reader = _reader(result, read, name, f"{place} split {name}", columns, class_names)
            readers.setdefault(SPLIT_NAMES[name], []).append(reader)
    if not readers:
        got = "; ".join(result.notes) or "no splits"
        raise InputError("no split with labels", where=place, expected="train, validation or test", got=got)
    result.splits.update({split: joined(parts) for split, parts in readers.items()})
    return result


def first_line(error: BaseException) -> str:
    """What a library says went wrong, short enough for one line."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"[:300]


def _has_label(values: Values, class_names: Sequence[str] | None) -> bool:
    return values[1] is not None and not (class_names is not None and values[1] == -1)


def _reader(
    result: Found,
    read: Callable[[str], Iterable[Values]],
    name: str,
    place: str,
    columns: Columns,
    class_names: Sequence[str] | None,
) -> Reader:
    def rows(on_fault: OnFault) -> Iterator[Row]:
        without, prefix = 0, f"{place} row "
        for number, values in enumerate(read(name), 1):
            if not _has_label(values, class_names):
                without += 1
                continue
            where = prefix + str(number)
            try:
                if class_names is not None:
                    values = (values[0], _named(values[1], class_names, where), *values[2:])
                row = row_of(columns, values, where)
            except InputError as error:
                on_fault(error)
                continue
            yield row
        if without:
            result.note(f"left out: split {name}'s {without} examples without labels")

    return rows


def _named(label: object, class_names: Sequence[str], where: str) -> str | list[str]:
    """The name of a numbered class, or those of a list of them."""
    if isinstance(label, list | tuple):
        return [_named(item, class_names, where) for item in label]
    if label not in range(len(class_names)):
        expected = f"a class from 0 to {len(class_names) - 1}"
        raise InputError("a label is not usable", where=where, expected=expected, got=repr(label))
    return class_names[label]

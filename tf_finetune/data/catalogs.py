"""What the Hugging Face hub and TensorFlow Datasets have in common: named splits, and classes by number."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from tf_finetune.data.rows import SPLIT_NAMES, Found, Row, label_of, text_of
from tf_finetune.errors import InputError

# A text and a label as a catalog gives them.
Pair = tuple[object, object]


def found(
    place: str,
    sizes: Mapping[str, int],
    read: Callable[[str], Iterable[Pair]],
    class_names: Sequence[str] | None,
) -> Found:
    """The labelled rows of the splits that are one of ours; what else there is gets a note.

    Args:
        place: the dataset, for messages.
        sizes: examples in each split.
        read: the texts and labels of a split. A label of None, or -1 of a numbered class, is none.
        class_names: what the numbers stand for; None where labels name themselves.

    Raises:
        InputError: no split is usable, or a text or label is not.
    """
    splits: dict[str, list[Row]] = {}
    notes = []
    for name, size in sizes.items():
        if name not in SPLIT_NAMES:
            notes.append(f"left out: split {name} ({size} examples), which is none of train, validation, test")
            continue
        rows = list(_labelled(read(name), class_names, f"{place} split {name}"))
        if rows:
            splits.setdefault(SPLIT_NAMES[name], []).extend(rows)
        if len(rows) < size:
            notes.append(
                f"left out: {'' if rows else 'all of '}split {name}'s {size - len(rows)} examples without labels"
            )
    if not splits:
        got = "; ".join(notes) or "no splits"
        raise InputError("no split with labels", where=place, expected="train, validation or test", got=got)
    return Found(splits, tuple(notes))


def first_line(error: BaseException) -> str:
    """What a library says went wrong, short enough for one line."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"[:300]


def _labelled(pairs: Iterable[Pair], class_names: Sequence[str] | None, place: str) -> Iterator[Row]:
    for number, (text, label) in enumerate(pairs, 1):
        if label is None or (class_names is not None and label == -1):
            continue
        where = f"{place} row {number}"
        if class_names is not None:
            if label not in range(len(class_names)):
                expected = f"a class from 0 to {len(class_names) - 1}"
                raise InputError("a label is not usable", where=where, expected=expected, got=repr(label))
            label = class_names[label]
        yield text_of(text, where), label_of(label, where)

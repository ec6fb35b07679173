"""Which split of a training run each row is in, told while rows stream by: `splitting`'s rules without its lists."""

import random
from collections import Counter
from collections.abc import Iterator

from tf_finetune.errors import InputError
from tf_finetune.readers.rows import WHOLE, Found, OnFault, Reader, Row
from tf_finetune.readers.text_hash import sha256_of, tenth_of

BY_TENTH = {0: "test", 1: "validation"}


def placed(
    found: Found, *, max_examples: int, validation_examples: int, seed: int, on_fault: OnFault
) -> Iterator[tuple[str, str, Row]]:
    """Every row with two splits: the one it is read from, and the one that training puts it in ("" for none).

    One pass over the data; one more to count rows where `max_examples` is given, and one more over train where as
    many rows as `validation_examples` says, or a tenth of those drawn, are held out. That pass keeps 100 bytes a row.

    Args:
        found: what the source holds.
        max_examples: as for `sources.load`.
        validation_examples: as for `sources.load`.
        seed: as for `sources.load`.
        on_fault: what to do about a row that cannot be used; called in the last pass only.

    Raises:
        InputError: training would refuse `validation_examples`.
    """
    is_whole = WHOLE in found.splits
    if validation_examples and (is_whole or "validation" in found.splits):
        raise InputError(
            "the validation split of the data is fixed already",
            where="data.validation_examples",
            expected=0,
            got=validation_examples,
        )
    drawn = _drawn(found, max_examples, seed) if max_examples else {}
    held = None
    if "train" in found.splits and "validation" not in found.splits and (validation_examples or "train" in drawn):
        held = _held(found.splits["train"], drawn.get("train"), validation_examples)
    for split, row, position in _rows(found, on_fault):
        if split in drawn and position not in drawn[split]:
            yield split, "", row
        elif is_whole or split != "train" or "validation" in found.splits:
            yield split, split, row
        elif digest(row.text) in held if held is not None else _tenth(row.text) == 1:
            yield split, "validation", row
        else:
            yield split, "train", row


def digest(text: str) -> bytes:
    """Enough of a text's hash to order texts as `splitting` does, and never meet two alike."""
    return sha256_of(text)[:16]


def _tenth(text: str) -> int:
    return tenth_of(sha256_of(text))


def _rows(found: Found, on_fault: OnFault) -> Iterator[tuple[str, Row, int]]:
    """Every row, its split by name or by hash, and its position there."""
    positions: Counter[str] = Counter()
    for name in sorted(found.splits, key=(WHOLE, "train", "validation", "test").index):
        for row in found.splits[name](on_fault):
            split = BY_TENTH.get(_tenth(row.text), "train") if name == WHOLE else name
            yield split, row, positions[split]
            positions[split] += 1


def _drawn(found: Found, max_examples: int, seed: int) -> dict[str, set[int]]:
    """The positions drawn of each split that has more than `max_examples` rows."""
    sizes = Counter(split for split, _, _ in _rows(found, _pass_over))
    return {
        split: set(random.Random(seed).sample(range(size), max_examples))
        for split, size in sizes.items()
        if max_examples < size
    }


def _held(train: Reader, drawn: set[int] | None, validation_examples: int) -> set[bytes]:
    """The digests of the texts that go from train to validation."""
    rows = enumerate(train(_pass_over))
    copies = Counter(digest(row.text) for position, row in rows if drawn is None or position in drawn)
    size = copies.total()
    if validation_examples >= size:
        expected, where = f"fewer than the {size} training examples", "data.validation_examples"
        raise InputError("too many validation examples", where=where, expected=expected, got=validation_examples)
    number = validation_examples or max(1, size // 10)
    chosen = set()
    for key in sorted(copies):
        if copies[key] <= number:
            chosen.add(key)
            number -= copies[key]
    return chosen


def _pass_over(error: InputError) -> None:
    """The OnFault of a pass that is not the last."""

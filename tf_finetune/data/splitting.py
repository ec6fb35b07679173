"""Which example is in which split: 80/10/10 by hash, a validation split out of train, and draws of a few."""

import hashlib
import random
import re
from collections import Counter
from collections.abc import Iterable
from decimal import Decimal

from tf_finetune.data.rows import WHOLE, Found, Row
from tf_finetune.errors import InputError

NUMBER = re.compile(r"-?(\d+\.?\d*|\.\d+)([eE][-+]?\d{1,3})?")


def named_splits(found: Found, source: str) -> dict[str, list[Row]]:
    """The splits a source names, or 80/10/10 by the text alone where it names none.

    Raises:
        InputError: a split is empty.
    """
    splits = dict(found.splits)
    if WHOLE in splits:
        splits = {"train": [], "validation": [], "test": []}
        for row in found.splits[WHOLE]:
            splits[{0: "test", 1: "validation"}.get(_tenth(row[0]), "train")].append(row)
    refuse_empty(splits, source)
    return {split: splits[split] for split in ("train", "validation", "test") if split in splits}


def refuse_empty(splits: dict[str, list[Row]], source: str) -> None:
    """Refuses a split without rows.

    Raises:
        InputError: there is one.
    """
    for split, rows in splits.items():
        if not rows:
            expected = "at least one example a split; a file of few rows cannot be split 80/10/10"
            raise InputError(f"the {split} split is empty", where=source, expected=expected)


def label_names(splits: dict[str, list[Row]], source: str) -> tuple[str, ...]:
    """The classes of train (of all splits where there is no train), numbers in numeric order.

    Raises:
        InputError: there is one class only, or the labels are fractions.
    """
    names = {label for _, label in splits.get("train") or [row for rows in splits.values() for row in rows]}
    if all(NUMBER.fullmatch(name) for name in names):
        fractions = [name for name in sorted(names) if Decimal(name) != Decimal(name).to_integral_value()]
        if fractions:
            expected = "classes: names or whole numbers"
            raise InputError("labels are fractional numbers", where=source, expected=expected, got=repr(fractions[0]))
        names = sorted(sorted(names), key=Decimal)  # sorted twice: 1 and 01 tie
    if len(names) < 2:
        expected = "two or more labels"
        raise InputError("only one class in the training data", where=source, expected=expected, got=", ".join(names))
    return tuple(names if isinstance(names, list) else sorted(names))


def drawn(rows: list[Row], max_examples: int, seed: int) -> list[Row]:
    """At most so many rows, drawn by seed; 0 means all."""
    return random.Random(seed).sample(rows, max_examples) if 0 < max_examples < len(rows) else rows


def with_validation(
    splits: dict[str, list[Row]], source: str, *, validation_examples: int, max_examples: int, seed: int
) -> dict[str, list[Row]]:
    """Draws examples of each split, and takes a validation split out of train where there is none.

    Raises:
        InputError: `validation_examples` is too many, or the source has a validation split already.
    """
    few = {split: drawn(rows, max_examples, seed) for split, rows in splits.items()}
    if "train" not in splits:
        return few
    train, field = few["train"], "data.validation_examples"
    if "validation" in splits:
        if validation_examples:
            what = f"the validation split of {source} is fixed already"
            raise InputError(what, where=field, expected=0, got=validation_examples)
        return few
    if validation_examples >= len(train):
        expected = f"fewer than the {len(train)} training examples"
        raise InputError("too many validation examples", where=field, expected=expected, got=validation_examples)
    if validation_examples:
        held = _lowest(train, validation_examples)
    elif len(train) < len(splits["train"]):
        held = _lowest(train, max(1, len(train) // 10))
    else:
        held = {text for text, _ in train if _tenth(text) == 1}
    few["train"] = [row for row in train if row[0] not in held]
    few["validation"] = [row for row in train if row[0] in held]
    refuse_empty(few, source)
    return {split: few[split] for split in ("train", "validation", "test") if split in few}


def _lowest(rows: Iterable[Row], number: int) -> set[str]:
    """The texts of `number` rows, by the lowest hash; fewer where that would part rows of the same text."""
    copies = Counter(text for text, _ in rows)
    chosen: set[str] = set()
    for text in sorted(copies, key=_hash):
        if copies[text] <= number:
            chosen.add(text)
            number -= copies[text]
    return chosen


def _tenth(text: str) -> int:
    return int(_hash(text), 16) % 10


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

"""Texts that are there more than once, found among their hashes: copies, leaks between splits, two labels for one."""

import dataclasses

import numpy as np

# The hash that stands for "compare with nothing", such as a blank text's.
NO_TEXT = 0


@dataclasses.dataclass
class Repeats:
    """Rows by number, in no order.

    Attributes:
        copies: a row, and the first row of its split with the same text.
        leaks: a row, and a row with the same text in a split before its own: train, validation, test.
        conflicts: the rows of each text that has more than one label.
    """

    copies: list[tuple[int, int]] = dataclasses.field(default_factory=list)
    leaks: list[tuple[int, int]] = dataclasses.field(default_factory=list)
    conflicts: list[list[int]] = dataclasses.field(default_factory=list)


def repeats(keys: np.ndarray, splits: np.ndarray, labels: np.ndarray, *, but: np.ndarray | None = None) -> Repeats:
    """Compares rows by a hash of their text.

    Sorting takes 16 bytes a row for a moment; time goes by the number of repeated texts.

    Args:
        keys: int64 [rows], NO_TEXT where there is nothing to compare.
        splits: uint8 [rows], the number of each one's split.
        labels: float64 [rows], equal where labels are.
        but: int64 [rows], a finer hash: what repeats in that, too, is passed over, because it is known already.
    """
    order = np.argsort(keys, kind="stable")
    changes = np.flatnonzero(np.diff(keys[order])) + 1
    starts, ends = np.concatenate([[0], changes]), np.concatenate([changes, [len(keys)]])
    found = Repeats()
    for group in np.flatnonzero(ends - starts > 1):
        rows = order[starts[group] : ends[group]]
        if keys[rows[0]] != NO_TEXT:
            finer = list(range(len(rows))) if but is None else but[rows].tolist()
            _compare(rows.tolist(), splits[rows].tolist(), labels[rows].tolist(), finer, found)
    return found


def _compare(rows: list[int], splits: list[int], labels: list[float], finer: list[int], found: Repeats) -> None:
    """Adds what the rows of one text have to say."""
    first: dict[int, int] = {}
    forms: dict[int, set[int]] = {}
    for row, split, form in zip(rows, splits, finer, strict=True):
        if split in first and form not in forms[split]:
            found.copies.append((row, first[split]))
        first.setdefault(split, row)
        forms.setdefault(split, set()).add(form)
    for row, split, form in zip(rows, splits, finer, strict=True):
        before = [other for other in sorted(first) if other < split]
        if before and not any(form in forms[other] for other in before):
            found.leaks.append((row, first[before[0]]))
    by_form: dict[int, set[float]] = {}
    for form, label in zip(finer, labels, strict=True):
        by_form.setdefault(form, set()).add(label)
    if len({frozenset(of_form) for of_form in by_form.values()}) > 1:
        found.conflicts.append(rows)

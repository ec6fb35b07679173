"""Whether one of two models is better, from their answers to the same examples."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from tf_finetune.evaluation.intervals import holm
from tf_finetune.evaluation.slices import FEWEST, SIGNIFICANCE, Masks


@dataclasses.dataclass(frozen=True)
class Change:
    """What became of some examples' answers from one model to the other.

    Attributes:
        examples: how many.
        before, after: the share answered right; of numbers the mean absolute error.
        better, worse: examples that one of the two has right and the other wrong; of numbers those with the smaller
            and the larger error.
        chance: the p-value of "not worse".
    """

    examples: int
    before: float
    after: float
    better: int
    worse: int
    chance: float


@dataclasses.dataclass(frozen=True)
class SliceChange:
    """The same of a slice.

    Attributes:
        column, value: as of `slices.Slice`.
        change: of its examples.
        is_worse: whether it is worse beyond chance, all slices taken together.
    """

    column: str
    value: str
    change: Change
    is_worse: bool


def change(before: np.ndarray, after: np.ndarray) -> Change:
    """Two models' answers to the same examples.

    Shares are compared by McNemar's test (1947) in its exact form: of the examples that only one of the two has right,
    as many are lost as won by chance. Errors are compared by Wilcoxon's signed ranks (1945).

    Args:
        before, after: bool (n,), which answers are right; or float (n,), absolute errors. n of 1 or more.
    """
    from scipy import stats

    if before.dtype == bool:
        better, worse = int((after & ~before).sum()), int((before & ~after).sum())
        chance = stats.binomtest(worse, better + worse, alternative="greater").pvalue if better + worse else 1.0
    else:
        better, worse = int((after < before).sum()), int((after > before).sum())
        chance = stats.wilcoxon(after, before, alternative="greater").pvalue if better + worse else 1.0
    return Change(len(before), float(before.mean()), float(after.mean()), better, worse, float(chance))


def slice_changes(before: np.ndarray, after: np.ndarray, masks: Masks) -> list[SliceChange]:
    """The change of each slice of `slices.FEWEST` examples or more, in the order of the masks."""
    changes = {name: change(before[mask], after[mask]) for name, mask in masks.items() if mask.sum() >= FEWEST}
    worse = np.array(holm([one.chance for one in changes.values()])) <= SIGNIFICANCE
    return [
        SliceChange(*name, one, is_worse=bool(is_worse))
        for (name, one), is_worse in zip(changes.items(), worse, strict=True)
    ]


def refused(overall: Change, slices: Sequence[SliceChange], low: float | None, margin: float | None) -> list[str]:
    """Why the second model shall not take the first one's place; empty if nothing speaks against it.

    Args:
        overall: of all examples.
        slices: of some.
        low: the lower end of the interval of how much better it is; None where there is none.
        margin: how much worse it may be at most, which `low` has to rule out; None means that it need not.
    """
    reasons = []
    if overall.chance <= SIGNIFICANCE:
        reasons.append(
            f"it is worse beyond chance: {overall.worse} answers lost and {overall.better} won (p {overall.chance:.2g})"
        )
    if margin is not None and low is not None and low < -margin:
        reasons.append(f"it may be {-low:.4f} worse, which is more than {margin:g}")
    reasons += [
        f"it is worse where {one.column} is {one.value}: {one.change.before:.4f} before, {one.change.after:.4f} now"
        for one in slices
        if one.is_worse
    ]
    return reasons

"""Whether one of two models is better, from their answers to the same examples."""

import dataclasses
import warnings
from collections.abc import Mapping, Sequence

import numpy as np

from tf_finetune.evaluation.intervals import holm
from tf_finetune.evaluation.slices import FEWEST, SIGNIFICANCE, Masks

# Metrics whose change is what `change` tests; of others the interval says it.
TESTED = ("accuracy", "mean_absolute_error")
# Of fewer examples in all no verdict is given: a model that has lost one answer in twenty would pass for as good.
FEWEST_IN_ALL = 100


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


def change(before: np.ndarray, after: np.ndarray) -> Change:
    """Two models' answers to the same examples.

    Shares are compared by McNemar's test (1947) in its exact form: of the examples that only one of the two has right,
    as many are lost as won by chance. Mean errors are compared by the t-test of pairs.

    Args:
        before, after: bool (n,), which answers are right; or float (n,), absolute errors. n of 1 or more.
    """
    if before.dtype == bool:
        better, worse = int((after & ~before).sum()), int((before & ~after).sum())
        chance = _chance_of_answers(better, worse)
    else:
        better, worse = int((after < before).sum()), int((after > before).sum())
        chance = _chance_of_errors(after - before)
    return Change(len(before), float(before.mean()), float(after.mean()), better, worse, chance)


def _chance_of_answers(better: int, worse: int) -> float:
    from scipy import stats

    return float(stats.binomtest(worse, better + worse, alternative="greater").pvalue) if better + worse else 1.0


def _chance_of_errors(growth: np.ndarray) -> float:
    from scipy import stats

    if len(growth) < 2 or np.ptp(growth) == 0:  # of which the test has no spread to compare with
        return 1.0 if growth.mean() <= 0 else 0.0
    with warnings.catch_warnings(action="ignore"):  # growths that are nearly the same have hardly any spread
        return float(stats.ttest_1samp(growth, 0.0, alternative="greater").pvalue)


def slice_changes(before: np.ndarray, after: np.ndarray, masks: Masks) -> dict[tuple[str, str], Change]:
    """The change of each slice of `slices.FEWEST` examples or more, in the order of the masks."""
    return {name: change(before[mask], after[mask]) for name, mask in masks.items() if mask.sum() >= FEWEST}


def worse_beyond_chance(overall: Change, slices: Mapping[tuple[str, str], Change]) -> tuple[bool, dict]:
    """Whether all examples together, and which slices, are worse; with all of these tests taken together (Holm)."""
    chances = [overall.chance, *(one.chance for one in slices.values())]
    in_all, *of_slices = (chance <= SIGNIFICANCE for chance in holm(chances))
    return in_all, dict(zip(slices, of_slices, strict=True))


def refused(
    overall: Change,
    slices: Mapping[tuple[str, str], Change],
    gain: Sequence[float] | None,
    *,
    metric: str,
    margin: float | None,
) -> list[str]:
    """Why the second model shall not take the first one's place; empty if nothing speaks against it.

    Args:
        overall: of all examples.
        slices: of some.
        gain: the interval of how much better the second one is by the metric; None where there is none.
        metric: its name.
        margin: how much worse it may be at most, which the interval has to rule out; None means that it need not.
    """
    if overall.examples < FEWEST_IN_ALL:
        return [f"{overall.examples} examples are too few to say, {FEWEST_IN_ALL} are needed"]
    in_all, of_slices = worse_beyond_chance(overall, slices)
    reasons = []
    if in_all:
        counts = f"worse in {overall.worse} examples and better in {overall.better}, p {overall.chance:.2g}"
        reasons.append(f"it is worse beyond chance: {counts}")
    elif metric not in TESTED and gain is not None and gain[1] < 0:
        reasons.append(f"its {metric} is worse beyond chance, by {-gain[1]:.4f} to {-gain[0]:.4f}")
    if margin is not None and (gain is None or gain[0] < -margin):
        found = "no interval says by how much" if gain is None else f"by up to {-gain[0]:.4f}"
        reasons.append(f"its {metric} may be worse by more than {margin:g}: {found}")
    reasons += [
        f"it is worse where {column} is {value}: {one.before:.4f} before, {one.after:.4f} now"
        for (column, value), one in slices.items()
        if of_slices[column, value]
    ]
    return reasons

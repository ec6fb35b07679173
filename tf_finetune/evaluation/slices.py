"""Where a model does worse than elsewhere: results by length, by label, and by any column of the data."""

import dataclasses
import math
import warnings
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from tf_finetune.config import ProblemType
from tf_finetune.evaluation.intervals import by_bootstrap, holm, of_share

# Fewer examples say too little: the interval of a share would be 35 points wide.
FEWEST = 30
# Values of a column that are shown apart: those with the most examples.
MOST_VALUES = 20
LONGEST_NAME = 100
EMPTY = "(empty)"
# A slice is called worse where chance alone would make one of all slices look so in one case of twenty.
SIGNIFICANCE = 0.05

# Column, value -> bool (examples,): which examples these are.
Masks = Mapping[tuple[str, str], np.ndarray]


@dataclasses.dataclass(frozen=True, eq=False)
class Groups:
    """Which group each example is in.

    Attributes:
        numbers: int (examples,), of its name.
        names: of the groups, in the order to be shown.
    """

    numbers: np.ndarray
    names: list[str]


@dataclasses.dataclass(frozen=True)
class Slice:
    """Some of the examples.

    Attributes:
        column: what they are alike in.
        value: how.
        examples: how many.
        score: the share answered right; of a regression the mean absolute error.
        low, high: its 95% interval.
        is_worse: whether it is worse than that of all others, beyond chance.
    """

    column: str
    value: str
    examples: int
    score: float
    low: float
    high: float
    is_worse: bool


def slices_of(scores: np.ndarray, masks: Masks) -> list[Slice]:
    """The slices of FEWEST examples or more, in the order of the masks.

    Worse is what Fisher's exact test says of right and wrong answers within and outside the slice, one-sided, and
    Welch's t-test of mean errors; the level is shared out among the slices after Holm (1979).

    Args:
        scores: bool (n,), which answers are right; or float (n,), absolute errors.
        masks: which examples each slice has.
    """
    large = {name: mask for name, mask in masks.items() if mask.sum() >= FEWEST}
    chances = [_chance(scores[mask], scores[~mask]) for mask in large.values()]
    worse = np.array(holm(chances)) <= SIGNIFICANCE
    return [
        Slice(*name, int(mask.sum()), float(scores[mask].mean()), *_interval(scores[mask]), is_worse=bool(is_worse))
        for (name, mask), is_worse in zip(large.items(), worse, strict=True)
    ]


def _chance(within: np.ndarray, outside: np.ndarray) -> float:
    """The p-value of "no worse than the others"."""
    from scipy import stats

    if not len(outside):
        return 1.0
    if within.dtype != bool:
        if len(outside) < 2 or np.ptp(within) == np.ptp(outside) == 0:  # no spread to compare with
            return 0.0 if len(outside) > 1 and within.mean() > outside.mean() else 1.0
        with warnings.catch_warnings(action="ignore"):  # errors that are nearly the same have hardly any spread
            return float(stats.ttest_ind(within, outside, equal_var=False, alternative="greater").pvalue)
    table = [[int(part.sum()), int((~part).sum())] for part in (within, outside)]
    return float(stats.fisher_exact(table, alternative="less").pvalue)


def _interval(scores: np.ndarray) -> list[float]:
    if scores.dtype == bool:
        return of_share(int(scores.sum()), len(scores))
    return by_bootstrap([scores], np.mean)


def by_length(lengths: np.ndarray) -> Masks:
    """Quarters of the examples by their tokens; fewer where many are of one length."""
    return _masks("tokens a text", _ranges(lengths.astype(np.float64)))


def by_label(labels: np.ndarray, label_names: Sequence[str], problem_type: ProblemType) -> Masks:
    """The examples of each label, of several labels those that have it; of numbers quarters."""
    if problem_type is ProblemType.REGRESSION:
        # Through its text: 0.1 in float32 is 0.1, and not 0.100000001490116.
        return _masks("true number", _ranges(labels.astype(str).astype(np.float64)))
    if problem_type is ProblemType.MULTI_LABEL_CLASSIFICATION:
        return {("true label", name): labels[:, k] == 1 for k, name in enumerate(label_names)}
    return _masks("true label", Groups(labels, list(label_names)))


def by_value(column: str, values: Sequence[str]) -> Masks:
    """The examples of each group of `groups_by_value`, under EMPTY those without a value."""
    groups = groups_by_value(values)
    return _masks(column, Groups(groups.numbers, [name or EMPTY for name in groups.names]))


def groups_by_value(values: Sequence[str]) -> Groups:
    """Examples of one value together, the most frequent first, then those of all rare values; of many different numbers
    quarters. Those without a value are a group of the name ""."""
    counts = Counter(values)
    numbers = _numbers(counts)
    if numbers is not None and len(numbers) > MOST_VALUES:
        has_value = np.array([value != "" for value in values])
        ranges = _ranges(np.array([numbers[value] for value in values if value]))
        codes = np.full(len(values), len(ranges.names))
        codes[has_value] = ranges.numbers
        return Groups(codes, [*ranges.names, *[""] * bool(counts[""])])
    frequent = [value for value, count in counts.most_common() if value and count >= FEWEST][:MOST_VALUES]
    shown = sorted([*frequent, *[""] * ("" in counts)], key=lambda value: -counts[value])
    order = {value: number for number, value in enumerate(shown)}
    rare = len(counts) - len(shown)
    codes = np.fromiter((order.get(value, len(shown)) for value in values), np.int64, count=len(values))
    return Groups(codes, [*(value[:LONGEST_NAME] for value in shown), *[f"({rare} rarer values)"] * bool(rare)])


def _masks(column: str, groups: Groups) -> Masks:
    masks: dict[tuple[str, str], np.ndarray] = {}
    for number, name in enumerate(groups.names):  # two that were cut to the same name are one
        masks[column, name] = masks.get((column, name), False) | (groups.numbers == number)
    return masks


def _numbers(values: Collection[str]) -> dict[str, float] | None:
    """Each value that is not "" as a number; None where one is none."""
    try:
        numbers = {value: float(value) for value in values if value}
    except ValueError:
        return None
    return numbers if all(map(math.isfinite, numbers.values())) else None


def _ranges(numbers: np.ndarray) -> Groups:
    """Up to four ranges with about as many numbers each, the lowest first."""
    bounds = np.unique(np.quantile(numbers, [0.25, 0.5, 0.75, 1], method="inverted_cdf"))
    parts = np.searchsorted(bounds, numbers)
    names = []
    for part in range(len(bounds)):
        within = numbers[parts == part]
        low, high = (f"{end:.15g}" for end in (within.min(), within.max()))
        names.append(low if low == high else f"{low} to {high}")
    return Groups(parts, names)

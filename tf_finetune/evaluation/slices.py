"""Where a model does worse than elsewhere: results by length, by label, and by any column of the data."""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from tf_finetune.config import ProblemType
from tf_finetune.evaluation.intervals import by_bootstrap, holm, of_share

# Fewer examples say too little: the interval of a share would be 35 points wide.
FEWEST = 30
# Values of a column that are shown apart: those with the most examples.
MOST_VALUES = 20
# A slice is called worse where chance alone would make one of all slices look so in one case of twenty.
SIGNIFICANCE = 0.05

# Column, value -> bool (examples,): which examples these are.
Masks = Mapping[tuple[str, str], np.ndarray]


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

    Worse is what Fisher's exact test says of right and wrong answers within and outside the slice, one-sided, and for
    errors the Mann-Whitney test; the level is shared out among the slices after Holm (1979).

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
        return float(stats.mannwhitneyu(within, outside, alternative="greater").pvalue)
    table = [[int(part.sum()), int((~part).sum())] for part in (within, outside)]
    return float(stats.fisher_exact(table, alternative="less").pvalue)


def _interval(scores: np.ndarray) -> list[float]:
    if scores.dtype == bool:
        return of_share(int(scores.sum()), len(scores))
    return by_bootstrap([scores], np.mean)


def by_length(lengths: np.ndarray) -> Masks:
    """Quarters of the examples by their tokens; fewer where many are of one length."""
    return {("tokens", name): mask for name, mask in _ranges(lengths.astype(np.float64), whole=True).items()}


def by_label(labels: np.ndarray, label_names: Sequence[str], problem_type: ProblemType) -> Masks:
    """The examples of each label, of several labels those that have it; of numbers quarters."""
    if problem_type is ProblemType.REGRESSION:
        return {("label", name): mask for name, mask in _ranges(labels.astype(np.float64), whole=False).items()}
    if problem_type is ProblemType.MULTI_LABEL_CLASSIFICATION:
        return {("label", name): labels[:, k] == 1 for k, name in enumerate(label_names)}
    return {("label", name): labels == k for k, name in enumerate(label_names)}


def by_value(column: str, values: Sequence[str]) -> Masks:
    """The examples of each value of a column, the most frequent first, those of rare values together; of many
    different numbers quarters."""
    array = np.array(values)
    numbers = _numbers(values)
    if numbers is not None and len(set(values)) > MOST_VALUES:
        whole = bool((numbers == np.round(numbers)).all())
        return {(column, name): mask for name, mask in _ranges(numbers, whole=whole).items()}
    counts = Counter(values).most_common()
    shown = [value for value, count in counts[:MOST_VALUES] if count >= FEWEST]
    masks = {(column, value or "(empty)"): array == value for value in shown}
    if rest := len(counts) - len(shown):
        masks[column, f"({rest} rarer values)"] = ~np.isin(array, shown)
    return masks


def _numbers(values: Sequence[str]) -> np.ndarray | None:
    try:
        numbers = np.array([float(value) for value in values])
    except ValueError:
        return None
    return numbers if np.isfinite(numbers).all() else None


def _ranges(numbers: np.ndarray, *, whole: bool) -> dict[str, np.ndarray]:
    """Up to four ranges of about as many examples each, by name."""
    bounds = np.unique(np.quantile(numbers, [0, 0.25, 0.5, 0.75, 1], method="inverted_cdf"))
    if len(bounds) == 1:
        return {f"{bounds[0]:g}": np.ones(len(numbers), bool)}
    masks = {}
    for number, (low, high) in enumerate(zip(bounds[:-1], bounds[1:], strict=True)):
        mask = (numbers > low) & (numbers <= high) if number else numbers <= high
        smallest = low + 1 if number and whole else numbers[mask].min()
        masks[f"{smallest:g} to {high:g}" if smallest < high else f"{high:g}"] = mask
    return masks

"""How far a metric may be from what it would be on all texts of the kind: 95% confidence intervals.

A share of right answers gets Wilson's interval (1927), which is right for few examples, too. All others are
bootstrapped (Efron 1979): the examples are drawn again, with replacement, a thousand times, and the interval holds the
middle 95% of what the metric then is. Only chance in which examples were measured is in it, not that of training.
"""

import dataclasses
from collections.abc import Iterator, Mapping

import numpy as np

from tf_finetune.config import ProblemType
from tf_finetune.evaluation.intervals import RESAMPLES, of_share
from tf_finetune.evaluation.metrics import probabilities_of, regression_metrics
from tf_finetune.evaluation.outcomes import answered, examples_loss, is_right

# Numbers in memory at once: how often each example was drawn, in so many resamples.
PIECE = 2**23
# Of more examples than MANY an interval is narrow, and fewer resamples tell where it ends.
MANY, FEWER = 50_000, 200
# A metric exists in so many of its resamples, or has no interval.
EXISTING = 0.9


def metric_intervals(
    logits: np.ndarray, labels: np.ndarray, problem_type: ProblemType, *, resamples: int = 0, seed: int = 0
) -> dict[str, list[float]]:
    """An interval for each metric of `metrics_of` that exists for these labels and varies with the examples drawn.

    Args:
        logits: float (n, num_labels).
        labels: (n,), or (n, num_labels) of 0 and 1; n of 1 or more.
        problem_type: what they are.
        resamples: how many bootstrap samples are drawn; 0 means RESAMPLES, and FEWER of many examples.
        seed: draws them.
    """
    found = _middle(_resampled(logits, labels, problem_type, resamples, seed))
    if problem_type is ProblemType.REGRESSION:
        return found
    right = is_right(logits, labels, problem_type)
    return {**found, "accuracy": of_share(int(right.sum()), len(right))}


def difference_intervals(
    logits: np.ndarray,
    others: np.ndarray,
    labels: np.ndarray,
    problem_type: ProblemType,
    *,
    resamples: int = 0,
    seed: int = 0,
) -> dict[str, list[float]]:
    """An interval for how much each metric of other answers to the same examples is above that of these.

    Both are measured on the same resamples, so that examples which are hard for both do not widen it.

    Args:
        logits, others: float (n, num_labels).
        labels, problem_type, resamples, seed: as of `metric_intervals`.
    """
    before, after = (_resampled(each, labels, problem_type, resamples, seed) for each in (logits, others))
    found = _middle({name: after[name] - before[name] for name in before})
    if problem_type is ProblemType.REGRESSION:
        return found
    right = (is_right(each, labels, problem_type) for each in (logits, others))
    return {**found, "accuracy": of_difference(*right)}


def of_difference(before: np.ndarray, after: np.ndarray) -> list[float]:
    """The interval of the difference of two shares of the same examples (Newcombe 1998, method 10): it has a width even
    where no answer changed, as those of other examples might.

    Args:
        before, after: bool (n,), n of 1 or more.
    """
    total, counts = len(before), (int(before.sum()), int(after.sum()))
    shares = np.array(counts) / total
    (low_before, high_before), (low_after, high_after) = (of_share(count, total) for count in counts)
    both, neither = int((before & after).sum()), int((~before & ~after).sum())
    product = both * neither - (counts[0] - both) * (counts[1] - both)
    product = max(product - total / 2, 0) if product > 0 else product
    spread = np.sqrt(np.prod([float(count * (total - count)) for count in counts]))
    correlation = product / spread if spread else 0.0

    def half(one: float, other: float) -> float:
        return float(np.sqrt(max(one**2 - 2 * correlation * one * other + other**2, 0.0)))

    difference = float(shares[1] - shares[0])
    below = half(shares[1] - low_after, high_before - shares[0])
    above = half(high_after - shares[1], shares[0] - low_before)
    return [difference - below, difference + above]


def _resampled(
    logits: np.ndarray, labels: np.ndarray, problem_type: ProblemType, resamples: int, seed: int
) -> dict[str, np.ndarray]:
    """Each metric of each resample, NaN where it does not exist."""
    of_kind = _of_regression if problem_type is ProblemType.REGRESSION else _of_classes
    resamples = resamples or (RESAMPLES if len(labels) <= MANY else FEWER)
    return of_kind(logits, np.asarray(labels), problem_type, resamples, seed)


def draws(examples: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """How often each example is in each resample: int64 (some resamples, examples), a piece at a time."""
    random = np.random.default_rng(seed)
    most = max(1, PIECE // examples)
    for start in range(0, resamples, most):
        rows = min(most, resamples - start)
        drawn = random.integers(examples, size=(rows, examples)) + np.arange(rows)[:, None] * examples
        yield np.bincount(drawn.ravel(), minlength=rows * examples).reshape(rows, examples)


def _middle(values: Mapping[str, np.ndarray]) -> dict[str, list[float]]:
    """The middle of each metric's values. None where many resamples lack the metric, as the others would be chosen
    ones, and none where it is the same in all, which says nothing of other examples."""
    found = {}
    for name, of_metric in values.items():
        existing = of_metric[~np.isnan(of_metric)]
        if len(existing) >= EXISTING * len(of_metric):
            low, high = np.percentile(existing, [2.5, 97.5]).tolist()
            if low < high:
                found[name] = [low, high]
    return found


def _of_regression(
    logits: np.ndarray, labels: np.ndarray, _: ProblemType, resamples: int, seed: int
) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    found = []
    for _ in range(resamples):
        drawn = random.integers(len(labels), size=len(labels))
        found.append(regression_metrics(logits[drawn], labels[drawn]))
    names = ("pearson", "spearman", "mean_absolute_error", "loss")
    return {name: np.array([metrics[name] for metrics in found], np.float64) for name in names}


def _of_classes(
    logits: np.ndarray, labels: np.ndarray, problem_type: ProblemType, resamples: int, seed: int
) -> dict[str, np.ndarray]:
    """The metrics of every resample. All but the area are made of sums over the examples drawn."""
    true, predicted = answered(logits, labels, problem_type)
    right = (true == predicted).all(axis=1).astype(np.float64)
    flags = [one.astype(np.float64) for one in (true & predicted, predicted, true)]
    probabilities, loss = probabilities_of(logits, problem_type), examples_loss(logits, labels, problem_type)
    several = problem_type is ProblemType.MULTI_LABEL_CLASSIFICATION
    is_one_of_two = not several and true.shape[1] == 2
    one = slice(1, 2) if is_one_of_two else slice(None)
    ranked = [_Ranked.of(true[:, k], probabilities[:, k]) for k in range(true.shape[1])[one]]
    pieces = []
    for counts in draws(len(labels), resamples, seed):
        found, named, actual = (counts @ flag for flag in flags)
        f1_of_each = _share(2 * found, named + actual)
        if several:
            found, named, actual = (sums.sum(axis=1, keepdims=True) for sums in (found, named, actual))
        of_piece = {
            "accuracy": counts @ right / len(labels),
            "precision": _share(found, named)[:, one].mean(axis=1),
            "recall": _share(found, actual)[:, one].mean(axis=1),
            "f1": _share(2 * found, named + actual)[:, one].mean(axis=1),
            "roc_auc": _mean_area(np.stack([area_of_counts(counts, each) for each in ranked]), every=not several),
            "loss": counts @ loss / len(labels),
        }
        pieces.append(of_piece | ({"f1_macro": f1_of_each.mean(axis=1)} if several else {}))
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}


def _share(parts: np.ndarray, wholes: np.ndarray) -> np.ndarray:
    """0 where there is nothing, as the metrics have it."""
    return np.divide(parts, wholes, out=np.zeros_like(parts), where=wholes > 0)


def _mean_area(areas: np.ndarray, *, every: bool) -> np.ndarray:
    """The mean over the classes, NaN where it does not exist.

    Args:
        areas: (classes, resamples).
        every: whether a class that a resample lacks makes it NaN; else it is left out.
    """
    exists = ~np.isnan(areas)
    enough = exists.all(axis=0) if every else exists.any(axis=0)
    sums = np.where(exists, areas, 0.0).sum(axis=0)
    return np.divide(sums, exists.sum(axis=0), out=np.full(len(sums), np.nan), where=enough)


@dataclasses.dataclass(frozen=True, eq=False)
class _Ranked:
    """Examples from the lowest score to the highest: their order, which are positive, and where equal scores begin."""

    order: np.ndarray
    is_positive: np.ndarray
    starts: np.ndarray

    @classmethod
    def of(cls, is_positive: np.ndarray, scores: np.ndarray) -> "_Ranked":
        order = np.argsort(scores, kind="stable")
        return cls(order, is_positive[order], np.flatnonzero(np.diff(scores[order], prepend=-np.inf)))


def area_of_counts(counts: np.ndarray, ranked: _Ranked) -> np.ndarray:
    """The area under the ROC curve of each resample: the share of pairs of both kinds that are in the right order.

    Args:
        counts: (resamples, n), how often each example is in each.
        ranked: the examples; of equal scores each pair counts half.

    Returns:
        (resamples,), NaN where one of the kinds is missing.
    """
    in_order = counts[:, ranked.order]
    positives, negatives = (
        np.add.reduceat(in_order * kind, ranked.starts, axis=1).astype(np.float64)
        for kind in (ranked.is_positive, ~ranked.is_positive)
    )
    below = np.cumsum(negatives, axis=1) - negatives
    pairs = positives.sum(axis=1) * negatives.sum(axis=1)
    ordered = (positives * (below + negatives / 2)).sum(axis=1)
    return np.divide(ordered, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)

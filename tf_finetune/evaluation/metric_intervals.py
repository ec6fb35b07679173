"""How far a metric may be from what it would be on all texts of the kind: 95% confidence intervals.

A share of right answers gets Wilson's interval (1927), which is right for few examples, too. All others are
bootstrapped (Efron 1979): the examples are drawn again, with replacement, a thousand times, and the interval holds the
middle 95% of what the metric then is. Only chance in which examples were measured is in it, not that of training.
"""

from collections.abc import Iterator, Mapping

import numpy as np

from tf_finetune.config import ProblemType
from tf_finetune.evaluation.intervals import RESAMPLES, of_share
from tf_finetune.evaluation.metrics import probabilities_of, regression_metrics
from tf_finetune.evaluation.outcomes import answered, examples_loss, is_right

# Numbers in memory at once: how often each example was drawn, in so many resamples.
PIECE = 2**23


def metric_intervals(
    logits: np.ndarray, labels: np.ndarray, problem_type: ProblemType, *, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, list[float]]:
    """An interval for each metric of `metrics_of` that exists for these labels.

    Args:
        logits: float (n, num_labels).
        labels: (n,), or (n, num_labels) of 0 and 1; n of 1 or more.
        problem_type: what they are.
        resamples: how many bootstrap samples are drawn.
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
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, list[float]]:
    """An interval for how much each metric of other answers to the same examples is above that of these.

    Both are measured on the same resamples, so that examples which are hard for both do not widen it.

    Args:
        logits, others: float (n, num_labels).
        labels, problem_type, resamples, seed: as of `metric_intervals`.
    """
    before, after = (_resampled(each, labels, problem_type, resamples, seed) for each in (logits, others))
    return _middle({name: after[name] - before[name] for name in before})


def _resampled(
    logits: np.ndarray, labels: np.ndarray, problem_type: ProblemType, resamples: int, seed: int
) -> dict[str, np.ndarray]:
    """Each metric of each resample, NaN where it does not exist."""
    of_kind = _of_regression if problem_type is ProblemType.REGRESSION else _of_classes
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
    """The middle of each metric's values; of those resamples in which it exists, and none where it never does."""
    existing = {name: of_metric[~np.isnan(of_metric)] for name, of_metric in values.items()}
    return {
        name: np.percentile(of_metric, [2.5, 97.5]).tolist() for name, of_metric in existing.items() if len(of_metric)
    }


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
    probabilities, loss = probabilities_of(logits, problem_type), examples_loss(logits, labels, problem_type)
    several = problem_type is ProblemType.MULTI_LABEL_CLASSIFICATION
    pieces = []
    for counts in draws(len(labels), resamples, seed):
        found, named, actual = (counts @ flags.astype(np.float64) for flags in (true & predicted, predicted, true))
        f1_of_each = _share(2 * found, named + actual)
        if several:
            found, named, actual = (sums.sum(axis=1, keepdims=True) for sums in (found, named, actual))
        one = slice(1, 2) if not several and true.shape[1] == 2 else slice(None)
        of_piece = {
            "accuracy": counts @ right / len(labels),
            "precision": _share(found, named)[:, one].mean(axis=1),
            "recall": _share(found, actual)[:, one].mean(axis=1),
            "f1": _share(2 * found, named + actual)[:, one].mean(axis=1),
            "roc_auc": _areas(counts, true, probabilities, every_class=not several),
            "loss": counts @ loss / len(labels),
        }
        pieces.append(of_piece | ({"f1_macro": f1_of_each.mean(axis=1)} if several else {}))
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}


def _share(parts: np.ndarray, wholes: np.ndarray) -> np.ndarray:
    """0 where there is nothing, as the metrics have it."""
    return np.divide(parts, wholes, out=np.zeros_like(parts), where=wholes > 0)


def _areas(counts: np.ndarray, true: np.ndarray, probabilities: np.ndarray, *, every_class: bool) -> np.ndarray:
    """The mean over the classes, of two the second's alone; NaN where it does not exist.

    Args:
        counts: (resamples, n).
        true: bool (n, classes).
        probabilities: (n, classes).
        every_class: whether one that a resample lacks makes it NaN; else it is left out.
    """
    classes = [1] if every_class and true.shape[1] == 2 else range(true.shape[1])
    areas = np.stack([area_of_counts(counts, true[:, k], probabilities[:, k]) for k in classes])
    exists = ~np.isnan(areas)
    enough = exists.all(axis=0) if every_class else exists.any(axis=0)
    sums = np.where(exists, areas, 0.0).sum(axis=0)
    return np.divide(sums, exists.sum(axis=0), out=np.full(len(sums), np.nan), where=enough)


def area_of_counts(counts: np.ndarray, is_positive: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """The area under the ROC curve of each resample: the share of pairs of both kinds that are in the right order.

    Args:
        counts: (resamples, n), how often each example is in each.
        is_positive: bool (n,).
        scores: (n,), of which equal ones count half.

    Returns:
        (resamples,), NaN where one of the kinds is missing.
    """
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.diff(scores[order], prepend=-np.inf))  # of each run of equal scores
    sorted_counts = counts[:, order]
    positives = np.add.reduceat(sorted_counts * is_positive[order], starts, axis=1).astype(np.float64)
    negatives = np.add.reduceat(sorted_counts * ~is_positive[order], starts, axis=1).astype(np.float64)
    below = np.cumsum(negatives, axis=1) - negatives
    pairs = positives.sum(axis=1) * negatives.sum(axis=1)
    ordered = (positives * (below + negatives / 2)).sum(axis=1)
    return np.divide(ordered, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)

"""How a classifier does on each group of examples, where the data says which group an example is of."""

import importlib.util
from collections.abc import Sequence
from typing import Any

import numpy as np

from tf_finetune.config import ProblemType
from tf_finetune.errors import InputError
from tf_finetune.evaluation import intervals
from tf_finetune.evaluation.metrics import THRESHOLD

# Fewer examples, of a group or of a class in it, say nothing.
FEWEST = 10
# What a share is of: all examples, or those of one class.
OF_ALL, OF_NEGATIVES, OF_POSITIVES = "examples", "negatives", "positives"
OF_TWO_CLASSES = {
    "accuracy": OF_ALL,
    "selection_rate": OF_ALL,
    "false_positive_rate": OF_NEGATIVES,
    "false_negative_rate": OF_POSITIVES,
}
AUCS = ("subgroup_auc", "bpsn_auc", "bnsp_auc")


def check_installed() -> None:
    """Raises InputError where fairlearn is missing."""
    if importlib.util.find_spec("fairlearn") is None:
        what = "comparing groups needs fairlearn, not installed here"
        raise InputError(what, expected="pip install 'tf_finetune[audit]'")


def group_metrics(
    probabilities: np.ndarray,
    labels: np.ndarray,
    groups: Sequence[str],
    *,
    problem_type: ProblemType,
    fewest: int = FEWEST,
    seed: int = 0,
) -> dict[str, Any]:
    """What is right and wrong in each group, and how far the groups are apart.

    Of two classes the second is the positive one. Their AUCs (Borkan et al. 2019, https://arxiv.org/abs/1903.04561) say
    whether its probability orders examples as it should: within the group (subgroup); the group's negatives and the
    other examples' positives (BPSN), where low means that the group's are taken for positive too readily; the other
    examples' negatives and the group's positives (BNSP), where low means that the group's are taken for negative.

    Args:
        probabilities: float (n, num_labels).
        labels: int (n,), or (n, num_labels) of 0 and 1 where there may be several.
        groups: the group of each example; "" is none, and such examples are only "other" ones.
        problem_type: of the answers, and not AUTO.
        fewest: examples for a number to be given, of each class that it is about; others are None.
        seed: of the AUCs' intervals.

    Returns:
        JSON-ready: "overall", of all examples; "groups", the same for each by name; "without_group", how many examples
        have none; "differences", of each number the largest among the groups less the smallest, None where fewer than
        two groups have one. Each of the first two has
        - "examples", and of two classes "positives" and "negatives";
        - "accuracy" (of several labels the share with all of them right), and of two classes "selection_rate" (the
          share answered as the positive one), "false_positive_rate" and "false_negative_rate", each with Wilson's
          interval as NAME_interval;
        - a group of two classes AUCS, each with a bootstrap interval as NAME_interval.

    Raises:
        InputError: fairlearn is not installed, or the answers are numbers.
    """
    if problem_type is ProblemType.REGRESSION:
        raise InputError("groups are compared by the classes answered", expected="a classifier", got="a regression")
    check_installed()
    probabilities, labels, names = np.asarray(probabilities, np.float64), np.asarray(labels), np.array(groups, object)
    is_one_of_two = problem_type is ProblemType.SINGLE_LABEL_CLASSIFICATION and probabilities.shape[1] == 2
    rows = _shares(probabilities, labels, names, problem_type, is_one_of_two=is_one_of_two, fewest=fewest)
    overall = rows.pop(None)
    without = int((names == "").sum())
    rows.pop("", None)
    if is_one_of_two:
        for name, row in rows.items():
            row |= _aucs(probabilities[:, 1], labels == 1, names == name, fewest=fewest, seed=seed)
    compared = (*OF_TWO_CLASSES, *AUCS) if is_one_of_two else ("accuracy",)
    return {
        "overall": overall,
        "groups": dict(sorted(rows.items())),
        "without_group": without,
        "differences": {metric: _difference([row[metric] for row in rows.values()]) for metric in compared},
    }


def _shares(
    probabilities: np.ndarray,
    labels: np.ndarray,
    names: np.ndarray,
    problem_type: ProblemType,
    *,
    is_one_of_two: bool,
    fewest: int,
) -> dict[str | None, dict[str, Any]]:
    """Counts and shares by group, and under None those of all examples."""
    from fairlearn import metrics
    from sklearn.metrics import accuracy_score

    asked = {"accuracy": accuracy_score, OF_ALL: metrics.count}
    if is_one_of_two:
        true, answered = (labels == 1).astype(np.int64), probabilities.argmax(axis=-1)
        asked |= {
            "selection_rate": metrics.selection_rate,
            "false_positive_rate": metrics.false_positive_rate,
            "false_negative_rate": metrics.false_negative_rate,
            OF_POSITIVES: lambda true, answered: int(true.sum()),
        }
    elif problem_type is ProblemType.MULTI_LABEL_CLASSIFICATION:
        is_right = ((probabilities >= THRESHOLD) == (labels == 1)).all(axis=-1)
        true, answered = np.ones(len(labels), np.int64), is_right.astype(np.int64)
    else:
        true, answered = labels, probabilities.argmax(axis=-1)
    frame = metrics.MetricFrame(metrics=asked, y_true=true, y_pred=answered, sensitive_features=names)
    measured = {None: frame.overall.to_dict()} | frame.by_group.to_dict("index")
    return {name: _row(values, is_one_of_two=is_one_of_two, fewest=fewest) for name, values in measured.items()}


def _row(values: dict[str, float], *, is_one_of_two: bool, fewest: int) -> dict[str, Any]:
    counts = {OF_ALL: int(values[OF_ALL])}
    if is_one_of_two:
        counts[OF_POSITIVES] = int(values[OF_POSITIVES])
        counts[OF_NEGATIVES] = counts[OF_ALL] - counts[OF_POSITIVES]
    row: dict[str, Any] = dict(counts)
    for metric, of in (OF_TWO_CLASSES if is_one_of_two else {"accuracy": OF_ALL}).items():
        total, share = counts[of], float(values[metric])
        has_enough = total >= max(fewest, 1)  # fairlearn calls a share of nothing 0
        row[metric] = share if has_enough else None
        row[f"{metric}_interval"] = intervals.of_share(round(share * total), total) if has_enough else None
    return row


def _aucs(
    scores: np.ndarray, is_positive: np.ndarray, is_member: np.ndarray, *, fewest: int, seed: int
) -> dict[str, Any]:
    subgroup, others = ((scores[who & is_positive], scores[who & ~is_positive]) for who in (is_member, ~is_member))
    row: dict[str, Any] = {}
    sides = ((subgroup[0], subgroup[1]), (others[0], subgroup[1]), (subgroup[0], others[1]))
    for name, (positives, negatives) in zip(AUCS, sides, strict=True):
        has_enough = min(len(positives), len(negatives)) >= max(fewest, 2)
        row[name] = float(_auc(positives, negatives)) if has_enough else None
        row[f"{name}_interval"] = (
            intervals.by_bootstrap([positives, negatives], _auc, seed=seed) if has_enough else None
        )
    return row


def _auc(positives: np.ndarray, negatives: np.ndarray, axis: int = -1) -> np.ndarray:
    """Of pairs of a positive and a negative the share in the right order, by ranks (Mann-Whitney); ties are half."""
    from scipy import stats

    count, others = positives.shape[axis], negatives.shape[axis]
    ranks = stats.rankdata(np.concatenate([positives, negatives], axis=axis), axis=axis)
    own = np.take(ranks, np.arange(count), axis=axis).sum(axis=axis)
    return (own - count * (count + 1) / 2) / (count * others)


def _difference(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return max(known) - min(known) if len(known) > 1 else None

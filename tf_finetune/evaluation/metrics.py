"""Numbers that say how good a classifier is, by the kind of its labels."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from tf_finetune.config import ProblemType

# A class of several is answered where its probability is at least this.
THRESHOLD = 0.5
LOWER_IS_BETTER = {"loss", "mean_absolute_error"}
_OF_CLASSES = ("accuracy", "f1", "loss", "precision", "recall", "roc_auc")
# What a model can be the best by.
SCORES = {
    ProblemType.SINGLE_LABEL_CLASSIFICATION: _OF_CLASSES,
    ProblemType.MULTI_LABEL_CLASSIFICATION: (*_OF_CLASSES, "f1_macro"),
    ProblemType.REGRESSION: ("loss", "mean_absolute_error", "pearson", "spearman"),
}


def metrics_of(logits: np.ndarray, labels: np.ndarray, problem_type: ProblemType) -> dict[str, Any]:
    """What `classification_metrics`, `multi_label_metrics` or `regression_metrics` says, whichever fits."""
    if problem_type is ProblemType.MULTI_LABEL_CLASSIFICATION:
        return multi_label_metrics(logits, labels)
    if problem_type is ProblemType.REGRESSION:
        return regression_metrics(logits, labels)
    return classification_metrics(logits, labels)


def score(metrics: Mapping[str, Any], problem_type: ProblemType, by: str = "") -> tuple[float, float]:
    """What "the best checkpoint" means, larger being better.

    Args:
        metrics: of a validation.
        problem_type: of the labels.
        by: the name of one of SCORES, of which a missing one is the worst; "" means accuracy, F1 (multi-label) or the
            negative mean squared error (regression), and among equals the lower loss.
    """
    if by:
        value = metrics.get(by)  # none where it does not exist for these answers
        return (-math.inf if value is None else -value if by in LOWER_IS_BETTER else value), -metrics["loss"]
    if problem_type is ProblemType.REGRESSION:
        return -metrics["loss"], 0.0
    return metrics["f1" if problem_type is ProblemType.MULTI_LABEL_CLASSIFICATION else "accuracy"], -metrics["loss"]


def headline(metrics: Mapping[str, Any]) -> str:
    """What `score` goes by, in words."""
    if "mean_absolute_error" in metrics:
        return f"mean squared error {number_text(metrics['loss'])}"
    name = "f1" if "f1_macro" in metrics else "accuracy"
    return f"{name} {number_text(metrics[name])}"


def number_text(value: float | int | None) -> str:
    """As tables show it; "-" where there is none."""
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.4f}"


def probabilities_of(logits: np.ndarray, problem_type: ProblemType) -> np.ndarray:
    """Probabilities (n, labels), computed in float64: of each class apart where there may be several."""
    return sigmoid(logits) if problem_type is ProblemType.MULTI_LABEL_CLASSIFICATION else softmax(logits)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-logits)) in float64, without overflow."""
    return np.exp(-np.logaddexp(0.0, -logits.astype(np.float64)))


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities (n, labels) of logits (n, labels), computed in float64."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    exponentials = np.exp(shifted)
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def classification_metrics(logits: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Accuracy, precision, recall, F1, ROC AUC, cross-entropy loss and the confusion matrix.

    With two classes, precision, recall, F1 and AUC are those of the second class; with more, the
    unweighted mean over the classes (macro; AUC one against the rest). AUC is None where the labels
    at hand hold too few classes for it to exist.

    Args:
        logits: float (n, num_labels).
        labels: int (n,), the true classes.

    Returns:
        JSON-ready values; confusion_matrix[i][j] counts examples of class i predicted as j.
    """
    from sklearn import metrics

    num_labels = logits.shape[1]
    probabilities, predicted, classes = softmax(logits), logits.argmax(axis=-1), list(range(num_labels))
    average = "binary" if num_labels == 2 else "macro"
    precision, recall, f1, _ = metrics.precision_recall_fscore_support(
        labels, predicted, labels=None if num_labels == 2 else classes, average=average, zero_division=0
    )
    return {
        "examples": len(labels),
        "accuracy": float(metrics.accuracy_score(labels, predicted)),
        "precision": float(precision),
        "recall": float(recall),
        "f1": float(f1),
        "roc_auc": _roc_auc(labels, probabilities, classes),
        "loss": float(metrics.log_loss(labels, probabilities, labels=classes)),
        "confusion_matrix": metrics.confusion_matrix(labels, predicted, labels=classes).tolist(),
    }


def multi_label_metrics(logits: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Metrics of classes that are each true or not; a class is answered from THRESHOLD on.

    Accuracy is the share of examples with every class right. Precision, recall and F1 count all (example, class)
    together (micro); f1_macro and roc_auc are unweighted means over the classes, AUC over those the labels at hand
    hold both of, None where there is none. The loss is the mean binary cross-entropy.

    Args:
        logits: float (n, num_labels).
        labels: (n, num_labels) of 0 and 1.

    Returns:
        JSON-ready values; confusion_matrix[k] is [[true negatives, false positives], [false negatives, true
        positives]] of class k.
    """
    from sklearn import metrics

    labels = np.asarray(labels, dtype=np.int64)
    probabilities = sigmoid(logits)
    predicted = (probabilities >= THRESHOLD).astype(np.int64)
    # Counted here: sklearn takes labels of one column for two classes.
    found, wrong, missed = (
        np.count_nonzero(of_kind, axis=0)
        for of_kind in (labels & predicted, predicted & (1 - labels), labels & (1 - predicted))
    )
    rest = len(labels) - found - wrong - missed
    both = [k for k in range(labels.shape[1]) if 0 < labels[:, k].sum() < len(labels)]
    aucs = [metrics.roc_auc_score(labels[:, k], probabilities[:, k]) for k in both]
    return {
        "examples": len(labels),
        "accuracy": float((labels == predicted).all(axis=1).mean()),
        "precision": _share(found.sum(), found.sum() + wrong.sum()),
        "recall": _share(found.sum(), found.sum() + missed.sum()),
        "f1": _f1(found.sum(), wrong.sum(), missed.sum()),
        "f1_macro": float(np.mean([_f1(*counts) for counts in zip(found, wrong, missed, strict=True)])),
        "roc_auc": float(np.mean(aucs)) if aucs else None,
        "loss": float(np.mean(np.logaddexp(0.0, np.where(labels == 1, -logits, logits), dtype=np.float64))),
        "confusion_matrix": np.stack([rest, wrong, missed, found], axis=1).reshape(-1, 2, 2).tolist(),
    }


def _share(part: int, whole: int) -> float:
    """0 where there is nothing, as sklearn's zero_division=0."""
    return float(part / whole) if whole else 0.0


def _f1(found: int, wrong: int, missed: int) -> float:
    return _share(2 * found, 2 * found + wrong + missed)


def regression_metrics(logits: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Mean squared error (the loss), mean absolute error, Pearson's and Spearman's correlation.

    A correlation is None where all predictions, or all labels, are the same.

    Args:
        logits: float (n, 1), the predictions.
        labels: float (n,).
    """
    from scipy import stats

    predicted, labels = logits[:, 0].astype(np.float64), np.asarray(labels, dtype=np.float64)
    varied = np.ptp(predicted) > 0 and np.ptp(labels) > 0
    return {
        "examples": len(labels),
        "pearson": float(stats.pearsonr(predicted, labels).statistic) if varied else None,
        "spearman": float(stats.spearmanr(predicted, labels).statistic) if varied else None,
        "mean_absolute_error": float(np.abs(predicted - labels).mean()),
        "loss": float(np.square(predicted - labels).mean()),
    }


def _roc_auc(labels: np.ndarray, probabilities: np.ndarray, classes: list[int]) -> float | None:
    from sklearn import metrics

    if len(set(labels.tolist())) < len(classes):
        return None
    if len(classes) == 2:
        return float(metrics.roc_auc_score(labels, probabilities[:, 1]))
    return float(metrics.roc_auc_score(labels, probabilities, multi_class="ovr", labels=classes))

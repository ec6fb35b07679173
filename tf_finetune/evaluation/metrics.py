"""Numbers that say how good a classifier is."""

from typing import Any

import numpy as np


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


def _roc_auc(labels: np.ndarray, probabilities: np.ndarray, classes: list[int]) -> float | None:
    from sklearn import metrics

    if len(set(labels.tolist())) < len(classes):
        return None
    if len(classes) == 2:
        return float(metrics.roc_auc_score(labels, probabilities[:, 1]))
    return float(metrics.roc_auc_score(labels, probabilities, multi_class="ovr", labels=classes))

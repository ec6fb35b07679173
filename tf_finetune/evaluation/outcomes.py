"""What a model made of each example: what reports, intervals and comparisons are computed from."""

import numpy as np

from tf_finetune.config import ProblemType
from tf_finetune.evaluation.metrics import THRESHOLD, probabilities_of


def answered(logits: np.ndarray, labels: np.ndarray, problem_type: ProblemType) -> tuple[np.ndarray, np.ndarray]:
    """Which classes are true and which were answered: both bool (n, classes).

    Args:
        logits: float (n, classes).
        labels: int (n,) classes, or (n, classes) of 0 and 1.
        problem_type: not a regression.
    """
    if problem_type is ProblemType.MULTI_LABEL_CLASSIFICATION:
        return np.asarray(labels).astype(bool), probabilities_of(logits, problem_type) >= THRESHOLD
    classes = np.arange(logits.shape[1])
    return np.asarray(labels)[:, None] == classes, logits.argmax(axis=-1)[:, None] == classes


def is_right(logits: np.ndarray, labels: np.ndarray, problem_type: ProblemType) -> np.ndarray:
    """bool (n,): whether the answer is the label; of several labels, whether all are."""
    true, predicted = answered(logits, labels, problem_type)
    return (true == predicted).all(axis=1)


def examples_loss(logits: np.ndarray, labels: np.ndarray, problem_type: ProblemType) -> np.ndarray:
    """float64 (n,): the cross-entropy of each example (of several labels their mean), or the squared error."""
    logits, labels = logits.astype(np.float64), np.asarray(labels)
    if problem_type is ProblemType.REGRESSION:
        return np.square(logits[:, 0] - labels)
    if problem_type is ProblemType.MULTI_LABEL_CLASSIFICATION:
        return np.logaddexp(0.0, np.where(labels == 1, -logits, logits)).mean(axis=1)
    return np.logaddexp.reduce(logits, axis=1) - logits[np.arange(len(labels)), labels]

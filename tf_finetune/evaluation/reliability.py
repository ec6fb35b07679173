"""Whether probabilities mean what they say: of the answers given with 0.8, are eight in ten right?"""

import dataclasses

import numpy as np

from tf_finetune.config import ProblemType
from tf_finetune.evaluation.metrics import THRESHOLD, probabilities_of
from tf_finetune.evaluation.outcomes import answered

BINS = 15


@dataclasses.dataclass(frozen=True)
class Reliability:
    """What a reliability diagram shows, bin by bin, empty bins left out.

    Attributes:
        expected_calibration_error: the mean gap between confidence and share of right answers, weighted by answers
            (ECE, Naeini et al. 2015; 15 bins of equal width as in Guo et al. 2017).
        answers: how many in each bin.
        confidence: their mean probability.
        accuracy: the share of them that is right.
    """

    expected_calibration_error: float
    answers: list[int]
    confidence: list[float]
    accuracy: list[float]


def reliability(logits: np.ndarray, labels: np.ndarray, problem_type: ProblemType) -> Reliability:
    """The bins of all answers; of several labels a text, each yes or no is one.

    Args:
        logits: float (n, classes), n of 1 or more.
        labels: int (n,), or (n, classes) of 0 and 1.
        problem_type: not a regression.
    """
    true, predicted = answered(logits, labels, problem_type)
    probabilities = probabilities_of(logits, problem_type)
    if problem_type is ProblemType.MULTI_LABEL_CLASSIFICATION:
        sure = np.where(probabilities >= THRESHOLD, probabilities, 1 - probabilities).ravel()
        right = (true == predicted).ravel()
    else:
        sure, right = probabilities.max(axis=1), (true & predicted).any(axis=1)
    bins = np.minimum((sure * BINS).astype(np.int64), BINS - 1)
    answers, confidences, hits = (
        np.bincount(bins, weights=weights, minlength=BINS) for weights in (None, sure, right.astype(np.float64))
    )
    full = answers > 0
    confidences, accuracy = confidences[full] / answers[full], hits[full] / answers[full]
    error = np.average(np.abs(confidences - accuracy), weights=answers[full])
    return Reliability(float(error), answers[full].tolist(), confidences.tolist(), accuracy.tolist())

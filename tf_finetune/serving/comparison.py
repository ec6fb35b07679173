"""A model in another form beside its checkpoint: how good each is, how far apart they are, and how large."""

import dataclasses

import numpy as np

from tf_finetune.config import ProblemType
from tf_finetune.evaluation.metrics import THRESHOLD, headline, metrics_of, number_text, probabilities_of, score


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One form, compared with its checkpoint on a split.

    Attributes:
        form: its name.
        quality: what `evaluation.metrics.headline` says of it, such as "accuracy 0.8603".
        lost: what it lost against the checkpoint: points (hundredths) of accuracy or F1, percent of the mean squared
            error of a regression; negative where it is better.
        difference: the largest, of probabilities; of a regression of the numbers, a share of those above 1.
        same_labels: share of the texts with the same labels; None for a regression.
        megabytes: of its file.
        share: of the size of the checkpoint's weights in float32.
    """

    form: str
    quality: str
    lost: float
    difference: float
    same_labels: float | None
    megabytes: float
    share: float


def compare(
    form: str,
    logits: np.ndarray,
    expected: np.ndarray,
    labels: np.ndarray,
    problem_type: ProblemType,
    *,
    size: int,
    float32_size: int,
) -> Comparison:
    """Compares logits (examples, num_labels) with the checkpoint's `expected`.

    Args:
        form: its name.
        logits, expected: of the same examples.
        labels: what the examples are, as `evaluation.metrics` takes them.
        problem_type: of the labels.
        size, float32_size: bytes of the form and of the checkpoint's weights.
    """
    before, after = (metrics_of(one, labels, problem_type) for one in (expected, logits))
    lost = 100 * (score(before, problem_type)[0] - score(after, problem_type)[0])
    if problem_type is ProblemType.REGRESSION:
        lost /= max(before["loss"], 1e-12)
        difference, same = np.abs(logits - expected) / np.maximum(np.abs(expected), 1), None
    else:
        mine, theirs = (probabilities_of(one, problem_type) for one in (logits, expected))
        difference, same = np.abs(mine - theirs), float(np.mean(_same_labels(mine, theirs, problem_type)))
    largest = float(difference.max()) if np.isfinite(logits).all() else float("inf")
    return Comparison(form, headline(after), lost, largest, same, size / 1e6, size / float32_size)


def _same_labels(mine: np.ndarray, theirs: np.ndarray, problem_type: ProblemType) -> np.ndarray:
    if problem_type is ProblemType.MULTI_LABEL_CLASSIFICATION:
        return ((mine >= THRESHOLD) == (theirs >= THRESHOLD)).all(axis=-1)
    return mine.argmax(axis=-1) == theirs.argmax(axis=-1)


def table(comparisons: list[Comparison], checkpoint: str) -> list[str]:
    """Lines of text: the checkpoint's `headline`, and a line a form."""
    first = f"  {'form':16}{'largest difference':>20}{'same labels':>13}{'MB':>8}{'size':>7}  quality"
    lines = [first, f"  {'checkpoint':16}{'-':>20}{'-':>13}{'-':>8}{'1.00':>7}  {checkpoint}"]
    for one in comparisons:
        same = "-" if one.same_labels is None else number_text(one.same_labels)
        sizes = f"{one.megabytes:>8.1f}{one.share:>7.2f}"
        lines.append(f"  {one.form:16}{one.difference:>20.1e}{same:>13}{sizes}  {one.quality}")
    return lines

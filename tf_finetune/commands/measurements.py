"""What a report says of a model's answers to the examples of a split, as JSON-ready facts."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tf_finetune.config import ProblemType
from tf_finetune.evaluation import outcomes, slices
from tf_finetune.evaluation.metric_intervals import metric_intervals
from tf_finetune.evaluation.metrics import metrics_of, probabilities_of
from tf_finetune.evaluation.reliability import reliability
from tf_finetune.pages import figures

if TYPE_CHECKING:
    from tf_finetune.data.examples import Examples
    from tf_finetune.evaluation.classifier import Classifier

# Points of a curve, classes that a confusion matrix shows, and confusions that are listed in its place where there are
# more.
MOST_POINTS, MOST_CLASSES, MOST_CONFUSIONS = 200, 30, 20

MEANINGS = {
    ProblemType.SINGLE_LABEL_CLASSIFICATION: (
        "Precision, recall and F1 of two labels are those of the second; of more, the mean over the labels (macro). "
    ),
    ProblemType.MULTI_LABEL_CLASSIFICATION: (
        "Accuracy: all labels of a text right. Precision, recall and F1: all labels of all texts together (micro). "
    ),
    ProblemType.REGRESSION: "The loss is the mean squared error. ",
}


@dataclasses.dataclass(frozen=True)
class Measured:
    """A split and the model's answers.

    Attributes:
        examples: its texts.
        lengths: int64 (examples,), tokens of each as the model reads it.
        labels: as `TokenizedExamples` has them.
        logits: float32 (examples, num_labels).
    """

    examples: "Examples"
    lengths: np.ndarray
    labels: np.ndarray
    logits: np.ndarray


def of(classifier: "Classifier", examples: "Examples") -> Measured:
    """Asks the model."""
    tokenized = classifier.tokenize(examples)
    return Measured(examples, tokenized.lengths, tokenized.labels, classifier.logits_of(tokenized))


def main_metric(problem_type: ProblemType) -> str:
    """The one to be named first."""
    if problem_type is ProblemType.REGRESSION:
        return "mean_absolute_error"
    return "f1" if problem_type is ProblemType.MULTI_LABEL_CLASSIFICATION else "accuracy"


def scores_of(logits: np.ndarray, labels: np.ndarray, kind: ProblemType) -> np.ndarray:
    """bool (examples,), which answers are right; of numbers float (examples,), how far off they are."""
    if kind is ProblemType.REGRESSION:
        return np.abs(logits[:, 0] - labels)
    return outcomes.is_right(logits, labels, kind)


def masks_of(measured: Measured, classifier: "Classifier", columns: Sequence[str]) -> slices.Masks:
    """The slices by length, by label and by the columns that data.slice_columns names."""
    of_labels = slices.by_label(measured.labels, classifier.label_names, classifier.problem_type)
    masks = {**slices.by_length(measured.lengths), **of_labels}
    values = zip(*measured.examples.slices, strict=True) if columns else ()
    for column, of_column in zip(columns, values, strict=True):
        masks |= slices.by_value(column, of_column)
    return masks


def results(measured: Mapping[str, Measured], classifier: "Classifier", *, seed: int) -> dict[str, Any]:
    """Metrics with intervals, confusion matrix, curves and reliability of each split."""
    splits = {name: _split(one, classifier, seed) for name, one in measured.items()}
    first = next(iter(splits.values()))["metrics"]
    meaning = MEANINGS[classifier.problem_type]
    if classifier.temperature != 1:
        meaning += "The loss is that of calibrated probabilities. "
    if "validation" in measured:
        fitted = " and fitted the temperature" if classifier.temperature != 1 else ""
        others = "; those of test do not" if "test" in measured else ""
        meaning += f"Validation chose the checkpoint{fitted}, so that its numbers flatter{others}."
    return {
        "splits": splits,
        "metrics": [name for name in first if name not in ("examples", "confusion_matrix")],
        "meaning": meaning.strip(),
    }


def _split(measured: Measured, classifier: "Classifier", seed: int) -> dict[str, Any]:
    logits, labels, kind = measured.logits, measured.labels, classifier.problem_type
    metrics = metrics_of(logits, labels, kind)
    intervals = metric_intervals(logits, labels, kind, seed=seed)
    found = {"examples": len(labels), "metrics": metrics, "intervals": intervals}
    if kind is ProblemType.REGRESSION:
        return found | dict.fromkeys(("confusion", "curves", "reliability"))
    return found | {
        "confusion": _confusion(metrics["confusion_matrix"], classifier),
        "curves": _curves(measured, classifier),
        "reliability": _reliability(logits, labels, classifier),
    }


def _reliability(logits: np.ndarray, labels: np.ndarray, classifier: "Classifier") -> dict[str, Any]:
    """As the model answers, and before calibration; None for the latter where there was none."""
    kind, temperature = classifier.problem_type, classifier.temperature
    before = None if temperature == 1 else reliability(logits * np.float32(temperature), labels, kind)
    return {
        "after": dataclasses.asdict(reliability(logits, labels, kind)),
        "before": before and dataclasses.asdict(before),
    }


def _confusion(matrix: list, classifier: "Classifier") -> dict[str, Any]:
    """A row a label: of one class a text what it was answered with, of several how often it was right; of many classes
    the most frequent confusions."""
    names = classifier.label_names
    if classifier.problem_type is ProblemType.MULTI_LABEL_CLASSIFICATION:
        rows = [
            _row(name, [found, missed, wrong], found + missed + wrong)
            for name, ((_, wrong), (missed, found)) in zip(names, matrix, strict=True)
        ]
        return _table("Labels found, missed and wrongly given", ["found", "missed", "wrong"], rows)
    if len(names) <= MOST_CLASSES:
        rows = [_row(name, counts, sum(counts)) for name, counts in zip(names, matrix, strict=True)]
        return _table("Rows: the label; columns: the answer", list(names), rows)
    counts = np.array(matrix)
    totals = counts.sum(axis=1)
    np.fill_diagonal(counts, 0)
    most = np.argsort(-counts, axis=None, kind="stable")[:MOST_CONFUSIONS]
    pairs = [divmod(int(place), len(names)) for place in most if counts.flat[place]]
    rows = [_row(f"{names[i]}, answered {names[j]}", [int(counts[i, j])], int(totals[i])) for i, j in pairs]
    return _table("The most frequent confusions", ["times"], rows)


def _table(caption: str, columns: list[str], rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {"caption": caption, "columns": columns, "rows": rows}


def _row(label: str, counts: list[int], total: int) -> dict[str, Any]:
    return {"label": label, "counts": counts, "total": total}


def _curves(measured: Measured, classifier: "Classifier") -> dict[str, Any] | None:
    """ROC and precision-recall of the second of two classes, or of each of a few, where the split has both sides."""
    from sklearn import metrics

    true, _ = outcomes.answered(measured.logits, measured.labels, classifier.problem_type)
    probabilities, names = probabilities_of(measured.logits, classifier.problem_type), classifier.label_names
    is_one_of_two = classifier.problem_type is ProblemType.SINGLE_LABEL_CLASSIFICATION and len(names) == 2
    classes = [k for k in ([1] if is_one_of_two else range(len(names))) if 0 < true[:, k].sum() < len(true)]
    if not 0 < len(classes) <= figures.MOST_CURVES:
        return None
    roc, pairs = [], []
    for k in classes:
        false_positive, true_positive, _ = metrics.roc_curve(true[:, k], probabilities[:, k])
        precision, recall, _ = metrics.precision_recall_curve(true[:, k], probabilities[:, k])
        roc.append(_thinned(false_positive, true_positive))
        pairs.append(_thinned(recall, precision))
    return {"names": [names[k] for k in classes], "roc": roc, "precision_recall": pairs}


def _thinned(x: np.ndarray, y: np.ndarray) -> list[list[float]]:
    chosen = np.unique(np.linspace(0, len(x) - 1, min(len(x), MOST_POINTS)).round().astype(np.int64))
    return [x[chosen].tolist(), y[chosen].tolist()]

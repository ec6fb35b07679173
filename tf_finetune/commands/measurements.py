"""What a report says of a model's answers to some examples, as JSON-ready facts."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tf_finetune.config import ProblemType
from tf_finetune.evaluation import counterfactual, outcomes, slices
from tf_finetune.evaluation.explanation import explain
from tf_finetune.evaluation.groups import group_metrics
from tf_finetune.evaluation.identity_terms import Axis
from tf_finetune.evaluation.metric_intervals import metric_intervals
from tf_finetune.evaluation.metrics import metrics_of, probabilities_of
from tf_finetune.evaluation.reliability import reliability

if TYPE_CHECKING:
    from tf_finetune.data.examples import Examples
    from tf_finetune.evaluation.classifier import Classifier
    from tf_finetune.evaluation.explanation import Explanation

# Wrong answers that are listed, and rows of a finding.
MOST_EXAMPLES = 20
# Of the listed answers the first ones are explained, up to so many tokens: each costs 64 times what its answer did.
EXPLAINED_TOKENS = 2000
# Classes that have a curve of their own, points of a curve, and classes that a confusion matrix shows.
MOST_CURVES, MOST_POINTS, MOST_CLASSES = 4, 200, 30

MEANINGS = {
    ProblemType.SINGLE_LABEL_CLASSIFICATION: (
        "Precision, recall and F1 of two labels are those of the second; of more, the mean over the labels (macro). "
        "The loss is that of calibrated probabilities."
    ),
    ProblemType.MULTI_LABEL_CLASSIFICATION: (
        "Accuracy: all labels of a text right. Precision, recall and F1: all labels of all texts together (micro). The "
        "loss is that of calibrated probabilities."
    ),
    ProblemType.REGRESSION: "The loss is the mean squared error.",
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


def results(measured: Mapping[str, Measured], classifier: "Classifier", *, seed: int) -> dict[str, Any]:
    """Metrics with intervals, confusion matrix, curves and reliability of each split."""
    splits = {name: _split(one, classifier, seed) for name, one in measured.items()}
    first = next(iter(splits.values()))["metrics"]
    return {
        "splits": splits,
        "metrics": [name for name in first if name not in ("examples", "confusion_matrix")],
        "meaning": MEANINGS[classifier.problem_type],
    }


def _split(measured: Measured, classifier: "Classifier", seed: int) -> dict[str, Any]:
    logits, labels, kind = measured.logits, measured.labels, classifier.problem_type
    metrics = metrics_of(logits, labels, kind)
    intervals = metric_intervals(logits, labels, kind, seed=seed)
    found = {"examples": len(labels), "metrics": metrics, "intervals": intervals}
    if kind is ProblemType.REGRESSION:
        return found | dict.fromkeys(("confusion", "roc", "precision_recall", "reliability"))
    before = reliability(logits * np.float32(classifier.temperature), labels, kind)
    return found | {
        "confusion": _confusion(metrics["confusion_matrix"], classifier),
        **_curves(measured, classifier),
        "reliability": {
            "before": dataclasses.asdict(before),
            "after": dataclasses.asdict(reliability(logits, labels, kind)),
        },
    }


def _confusion(matrix: list, classifier: "Classifier") -> dict[str, Any] | None:
    """A row a label: of one class a text what it was answered with, of several how often it was right."""
    names = classifier.label_names
    if classifier.problem_type is ProblemType.MULTI_LABEL_CLASSIFICATION:
        rows = [
            {"label": name, "counts": [found, missed, wrong], "total": found + missed + wrong}
            for name, ((_, wrong), (missed, found)) in zip(names, matrix, strict=True)
        ]
        return {
            "caption": "Labels found, missed and wrongly given",
            "columns": ["found", "missed", "wrong"],
            "rows": rows,
        }
    if len(names) > MOST_CLASSES:
        return None
    rows = [{"label": name, "counts": counts, "total": sum(counts)} for name, counts in zip(names, matrix, strict=True)]
    return {"caption": "Rows: the label; columns: the answer", "columns": list(names), "rows": rows}


def _curves(measured: Measured, classifier: "Classifier") -> dict[str, Any]:
    """ROC and precision-recall of the second of two classes, or of each of a few, where the split has both sides."""
    from sklearn import metrics

    true, _ = outcomes.answered(measured.logits, measured.labels, classifier.problem_type)
    probabilities, names = probabilities_of(measured.logits, classifier.problem_type), classifier.label_names
    one = classifier.problem_type is ProblemType.SINGLE_LABEL_CLASSIFICATION and len(names) == 2
    classes = [k for k in ([1] if one else range(len(names))) if 0 < true[:, k].sum() < len(true)]
    if not 0 < len(classes) <= MOST_CURVES:
        return {"roc": None, "precision_recall": None}
    roc, pairs = [], []
    for k in classes:
        false_positive, true_positive, _ = metrics.roc_curve(true[:, k], probabilities[:, k])
        precision, recall, _ = metrics.precision_recall_curve(true[:, k], probabilities[:, k])
        roc.append(_thinned(false_positive, true_positive))
        pairs.append(_thinned(recall, precision))
    shown = [names[k] for k in classes]
    return {"roc": {"names": shown, "lines": roc}, "precision_recall": {"names": shown, "lines": pairs}}


def _thinned(x: np.ndarray, y: np.ndarray) -> list[list[float]]:
    chosen = np.unique(np.linspace(0, len(x) - 1, min(len(x), MOST_POINTS)).round().astype(np.int64))
    return [x[chosen].tolist(), y[chosen].tolist()]


def where_it_fails(
    measured: Mapping[str, Measured], classifier: "Classifier", *, columns: Sequence[str]
) -> dict[str, Any]:
    """The slices and the worst errors, on test where there is one."""
    name = _last(measured)
    return {
        "slices": {"split": name, **_slices(measured[name], classifier, columns)},
        "errors": {"split": name, **_errors(measured[name], classifier)},
    }


def scores_of(logits: np.ndarray, labels: np.ndarray, kind: ProblemType) -> np.ndarray:
    """bool (examples,), which answers are right; of numbers float (examples,), how far off they are."""
    if kind is ProblemType.REGRESSION:
        return np.abs(logits[:, 0] - labels)
    return outcomes.is_right(logits, labels, kind)


def masks_of(measured: Measured, classifier: "Classifier", columns: Sequence[str]) -> slices.Masks:
    """The slices by length, by label and by the columns that data.slice_columns names."""
    of_labels = slices.by_label(measured.labels, classifier.label_names, classifier.problem_type)
    masks = {**slices.by_length(measured.lengths), **of_labels}
    rows = list(measured.examples.slices or ())
    for number, column in enumerate(columns):
        masks |= slices.by_value(column, [row[number] for row in rows])
    return masks


def _slices(measured: Measured, classifier: "Classifier", columns: Sequence[str]) -> dict[str, Any]:
    kind = classifier.problem_type
    score = "mean absolute error" if kind is ProblemType.REGRESSION else "accuracy"
    scores, masks = scores_of(measured.logits, measured.labels, kind), masks_of(measured, classifier, columns)
    tables: dict[str, list[dict[str, Any]]] = {}
    for one in slices.slices_of(scores, masks):
        tables.setdefault(one.column, []).append(dataclasses.asdict(one))
    meaning = (
        f"Groups of at least {slices.FEWEST} examples. One is called worse where its {score} is worse than that of all "
        "other examples beyond chance, all groups taken together (Holm, 5%)."
    )
    return {
        "score": score,
        "meaning": meaning,
        "tables": [{"column": column, "rows": rows} for column, rows in tables.items()],
    }


def _errors(measured: Measured, classifier: "Classifier") -> dict[str, Any]:
    """The examples answered wrong with the most confidence; of numbers those that are farthest off."""
    logits, labels, kind = measured.logits, measured.labels, classifier.problem_type
    if kind is ProblemType.REGRESSION:
        badness = np.abs(logits[:, 0] - labels)
        title, meaning = "Farthest off", "The examples whose number is farthest from the label."
    else:
        wrong = ~outcomes.is_right(logits, labels, kind)
        badness = np.where(wrong, outcomes.confidence(logits, kind), 0.0)
        title = "Confidently wrong"
        meaning = "The wrong answers given with the most confidence: look for wrong labels, and for what they share."
    worst = np.array([k for k in np.argsort(-badness, kind="stable")[:MOST_EXAMPLES] if badness[k] > 0], np.int64)
    shown = measured.examples.take(worst)
    explained = worst[np.cumsum(measured.lengths[worst]) <= EXPLAINED_TOKENS]
    why = [*_explained(measured, explained, classifier), *[None] * (len(worst) - len(explained))]
    answers = classifier.answers_of(logits[worst], shown.texts, shown.text_pairs)
    return {
        "title": title,
        "meaning": meaning,
        "examples": [
            {
                **_answered(answer, labels[index], classifier),
                "where": shown.places[number] if shown.places else "",
                "texts": _texts(answer, why[number]),
                "completeness_error": why[number] and why[number].completeness_error,
            }
            for number, (index, answer) in enumerate(zip(worst, answers, strict=True))
        ],
    }


def _explained(measured: Measured, indices: np.ndarray, classifier: "Classifier") -> "list[Explanation]":
    chosen = measured.examples.take(indices)
    labels = classifier.explainer.labels_of(measured.logits[indices]) if len(indices) else []
    return list(explain(classifier, list(chosen.texts), chosen.text_pairs and list(chosen.text_pairs), labels=labels))


def _texts(answer: dict[str, Any], why: "Explanation | None") -> list[list[dict[str, Any]]]:
    """The text, or both of a pair, in pieces: words with what they add to the score, and what stands between them."""
    texts = [answer[name] for name in ("text", "text_pair") if name in answer]
    if why is None:
        return [[{"text": text, "adds": None, "strength": 0.0}] for text in texts]
    words = why.words()
    most = max((abs(word.attribution) for word in words), default=0.0) or 1.0
    found = []
    for side, text in enumerate(texts):
        pieces, end = [], 0
        for word in (word for word in words if word.side == side):
            pieces.append({"text": text[end : word.start], "adds": None, "strength": 0.0})
            strength = round(abs(word.attribution) / most, 3)
            pieces.append({"text": text[word.start : word.end], "adds": word.attribution, "strength": strength})
            end = word.end
        pieces.append({"text": text[end:], "adds": None, "strength": 0.0})
        found.append([piece for piece in pieces if piece["text"]])
    return found


def _answered(answer: dict[str, Any], label: np.ndarray, classifier: "Classifier") -> dict[str, str]:
    """Label and answer in words."""
    names = classifier.label_names
    if classifier.problem_type is ProblemType.REGRESSION:
        said, given = f"{answer['score']:.3g}", f"{label:.3g}"
    elif classifier.problem_type is ProblemType.MULTI_LABEL_CLASSIFICATION:
        given = ", ".join(name for name, holds in zip(names, label, strict=True) if holds) or "none"
        said = ", ".join(answer["labels"]) or "none"
    else:
        given, said = names[label], f"{answer['label']} ({answer['score']:.3f})"
    return {"label": given, "answer": said}


def audit(
    measured: Mapping[str, Measured], classifier: "Classifier", axes: Sequence[Axis], columns: Sequence[str], seed: int
) -> dict[str, Any]:
    """Swapped words of groups on all measured texts, and each of the columns as groups of test, else validation."""
    kind = classifier.problem_type
    texts = [text for one in measured.values() for text in one.examples.texts]
    pairs = [pair for one in measured.values() for pair in one.examples.text_pairs or ()]
    swapped = counterfactual.audit(
        counterfactual.asking(classifier),
        texts,
        axes,
        text_pairs=pairs or None,
        problem_type=kind,
        label_names=classifier.label_names,
        seed=seed,
    )
    split = _last(measured)
    one, groups = measured[split], {}
    if kind is not ProblemType.REGRESSION:
        probabilities, rows = probabilities_of(one.logits, kind), list(one.examples.slices or ())
        for number, column in enumerate(columns):
            values = [row[number] for row in rows]
            groups[column] = group_metrics(probabilities, one.labels, values, problem_type=kind, seed=seed)
    return {"axes": swapped, "split": split, "groups": groups}


def _last(measured: Mapping[str, Measured]) -> str:
    return "test" if "test" in measured else "validation"

"""Where a model fails, as JSON-ready facts for a report: slices, errors with the words that pushed them, groups."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tf_finetune.commands.measurements import Measured, masks_of, scores_of
from tf_finetune.config import ProblemType
from tf_finetune.evaluation import counterfactual, outcomes, slices
from tf_finetune.evaluation.explanation import explain
from tf_finetune.evaluation.groups import group_metrics
from tf_finetune.evaluation.identity_terms import Axis
from tf_finetune.evaluation.metrics import THRESHOLD, probabilities_of

if TYPE_CHECKING:
    from tf_finetune.evaluation.classifier import Classifier
    from tf_finetune.evaluation.explanation import Explanation

# Errors that are listed, and rows of a finding.
MOST_EXAMPLES = 20
# Of the listed errors the first ones are explained, up to so many tokens in all: each takes 32 passes through the model
# and back, or more.
EXPLAINED_TOKENS = 2000
# Examples that an audit looks at, drawn by seed: what it finds does not grow sharper than that is of use.
MOST_AUDITED = 20_000


def slice_tables(measured: Measured, classifier: "Classifier", columns: Sequence[str]) -> dict[str, Any]:
    """How good the answers are by length, by label and by each of the columns."""
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
        "columns": list(columns),
        "meaning": meaning,
        "tables": [{"column": column, "rows": rows} for column, rows in tables.items()],
    }


def errors(measured: Measured, classifier: "Classifier") -> dict[str, Any]:
    """The examples answered wrong with the most confidence; of numbers those that are farthest off."""
    badness, blamed = _badness(measured, classifier)
    worst = np.array([k for k in np.argsort(-badness, kind="stable")[:MOST_EXAMPLES] if badness[k] > 0], np.int64)
    shown = measured.examples.take(worst)
    within = int((np.cumsum(measured.lengths[worst]) <= EXPLAINED_TOKENS).sum())
    names = [classifier.label_names[k] for k in blamed[worst]]
    few = shown.take(np.arange(within))
    pairs = None if few.text_pairs is None else list(few.text_pairs)
    why = [*explain(classifier, list(few.texts), pairs, labels=names[:within]), *[None] * (len(worst) - within)]
    answers = classifier.answers_of(measured.logits[worst], shown.texts, shown.text_pairs)
    is_number = classifier.problem_type is ProblemType.REGRESSION
    return {
        "title": "Farthest off" if is_number else "Confidently wrong",
        "meaning": _meaning(is_number=is_number),
        "examples": [
            {
                **_in_words(answer, measured.labels[worst[number]], classifier),
                "where": shown.places[number] if shown.places else "",
                "explained": names[number] if explanation else None,
                "texts": _texts(answer, explanation),
                "completeness_error": explanation and explanation.completeness_error,
            }
            for number, (answer, explanation) in enumerate(zip(answers, why, strict=True))
        ],
    }


def _meaning(*, is_number: bool) -> str:
    if is_number:
        return "The examples whose number is farthest from the label."
    return "The wrong answers given with the most confidence: look for wrong labels, and for what they share."


def _badness(measured: Measured, classifier: "Classifier") -> tuple[np.ndarray, np.ndarray]:
    """How bad each answer is, 0 for a right one, and the label that is to be explained.

    Of several labels a text it is the one that was answered wrong with the most confidence.
    """
    logits, labels, kind = measured.logits, measured.labels, classifier.problem_type
    if kind is ProblemType.REGRESSION:
        return np.abs(logits[:, 0] - labels), np.zeros(len(labels), np.int64)
    true, answered = outcomes.answered(logits, labels, kind)
    probabilities = probabilities_of(logits, kind)
    if kind is not ProblemType.MULTI_LABEL_CLASSIFICATION:
        return np.where((true & answered).any(axis=1), 0.0, probabilities.max(axis=1)), probabilities.argmax(axis=1)
    sure = np.where(probabilities >= THRESHOLD, probabilities, 1 - probabilities) * (true != answered)
    return sure.max(axis=1), sure.argmax(axis=1)


def _in_words(answer: dict[str, Any], label: np.ndarray, classifier: "Classifier") -> dict[str, str]:
    names = classifier.label_names
    if classifier.problem_type is ProblemType.REGRESSION:
        return {"label": f"{label:.6g}", "answer": f"{answer['score']:.6g}"}
    if classifier.problem_type is ProblemType.MULTI_LABEL_CLASSIFICATION:
        given = ", ".join(name for name, holds in zip(names, label, strict=True) if holds)
        return {"label": given or "none", "answer": ", ".join(answer["labels"]) or "none"}
    return {"label": names[label], "answer": f"{answer['label']} ({answer['score']:.3f})"}


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


def audit(
    measured: Measured, classifier: "Classifier", axes: Sequence[Axis], columns: Sequence[str], *, seed: int
) -> dict[str, Any]:
    """Swapped words for groups of people, and each of the columns as groups; of a regression the former alone."""
    kind = classifier.problem_type
    chosen = np.arange(len(measured.labels))
    if len(chosen) > MOST_AUDITED:
        chosen = np.sort(np.random.default_rng(seed).choice(chosen, MOST_AUDITED, replace=False))
    examples, groups = measured.examples.take(chosen), {}
    swapped = counterfactual.audit(
        counterfactual.asking(classifier),
        list(examples.texts),
        axes,
        text_pairs=None if examples.text_pairs is None else list(examples.text_pairs),
        problem_type=kind,
        label_names=classifier.label_names,
        seed=seed,
    )
    if columns and kind is not ProblemType.REGRESSION:
        probabilities, labels = probabilities_of(measured.logits[chosen], kind), measured.labels[chosen]
        for column, values in zip(columns, zip(*examples.slices, strict=True), strict=True):
            of_column = slices.groups_by_value(values)
            names = [of_column.names[number] for number in of_column.numbers]
            options = {"problem_type": kind, "fewest": slices.FEWEST, "seed": seed}
            groups[column] = group_metrics(probabilities, labels, names, **options)
    return {"axes": swapped, "groups": groups, "examples": len(chosen)}

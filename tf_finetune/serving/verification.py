"""Does an export answer as its checkpoint does? Asked where TensorFlow Serving would ask: outside Python."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tf_finetune.config import ProblemType
from tf_finetune.evaluation.metrics import THRESHOLD, probabilities_of
from tf_finetune.serving.export import hostile_texts, outputs, text_inputs
from tf_finetune.serving.session import run_in_c_api, signature_tensors

if TYPE_CHECKING:
    from tf_finetune.evaluation.classifier import Classifier

# The last of the texts asked hold the long one, on either side of a pair.
LONG = 2

TOLERANCE = 1e-4  # of a probability, between two float32 programs that sum in different orders


@dataclasses.dataclass(frozen=True)
class Check:
    """One promise and whether it was kept."""

    promise: str
    kept: bool
    detail: str


def verify(saved_model: Path, classifier: "Classifier", *, pairs: bool = False) -> list[Check]:
    """Asks the export and its checkpoint the same questions.

    Args:
        saved_model: one version of an export.
        classifier: the checkpoint it was made from, float32.
        pairs: whether a text comes with a second one.

    Raises:
        InputError: the folder is not a SavedModel.
    """
    checks = [_signatures(saved_model, classifier.problem_type, pairs=pairs)]
    if not checks[0].kept:
        return checks
    # Asked apart, because the one long text would have all the others padded to its length.
    sides, names = hostile_texts(pairs), text_inputs(pairs)
    groups = [[list(side[:-LONG]) for side in sides], [list(side[-LONG:]) for side in sides]]
    requests = [("serving_default", dict(zip(names, group, strict=True))) for group in groups]
    requests += [("tokens", _padded(*classifier.encode(*group))) for group in groups]
    promise = "answers through TensorFlow's C API"
    nothing = ("serving_default", {name: [] for name in names})
    try:
        *answers, from_nothing = run_in_c_api(saved_model, [*requests, nothing])
    except RuntimeError as error:
        return [*checks, Check(promise, False, str(error))]
    logits = np.concatenate([classifier.logits(*group) for group in groups])
    from_text, from_tokens = _joined(answers[:2]), _joined(answers[2:])
    return [
        *checks,
        Check(promise, True, "in a process without Python TensorFlow"),
        *_answers(from_text, from_tokens, logits, classifier),
        _close("logits are the checkpoint's", from_tokens["logits"], logits),
        _empty(from_nothing),
    ]


def _answers(from_text: dict, from_tokens: dict, logits: np.ndarray, classifier: "Classifier") -> list[Check]:
    """What suits the kind of labels."""
    if classifier.problem_type is ProblemType.REGRESSION:
        return [_close("raw text answers as the checkpoint does", from_text["score"], logits[:, 0])]
    probabilities = probabilities_of(logits, classifier.problem_type)
    checks = [
        _close("raw text answers as the checkpoint does", from_text["probabilities"], probabilities),
        _close("tokens answer as the checkpoint does", from_tokens["probabilities"], probabilities),
    ]
    if classifier.problem_type is ProblemType.MULTI_LABEL_CLASSIFICATION:
        return [*checks, _several_labels(from_text["labels"], probabilities, classifier.label_names)]
    return [
        *checks,
        _labels(from_text["label"], probabilities, classifier.label_names),
        _close("score is the label's probability", from_text["score"], from_text["probabilities"].max(axis=-1)),
    ]


def _empty(answer: dict[str, np.ndarray | list[str]]) -> Check:
    sizes = {name: len(value) for name, value in answer.items()}
    return Check("an empty batch gets an empty answer", not any(sizes.values()), f"sizes {sizes}")


def _several_labels(got: list[str], probabilities: np.ndarray, label_names: tuple[str, ...]) -> Check:
    """A class whose probability is within the tolerance of the threshold may be answered or not."""
    answered = np.array(got).reshape(probabilities.shape) == np.array(label_names)
    sure = np.abs(probabilities - THRESHOLD) > TOLERANCE
    right = (answered == (probabilities >= THRESHOLD))[sure]
    return Check("labels are the checkpoint's", bool(right.all()), f"{right.sum()} of {right.size} equal")


def _labels(got: list[str], probabilities: np.ndarray, label_names: tuple[str, ...]) -> Check:
    """A text whose best two labels are within the tolerance may get either."""
    near = probabilities >= probabilities.max(axis=-1, keepdims=True) - 2 * TOLERANCE
    right = [label in np.array(label_names)[row] for label, row in zip(got, near, strict=True)]
    return Check("labels are the checkpoint's", all(right), f"{sum(right)} of {len(right)} equal")


def _signatures(saved_model: Path, problem_type: ProblemType, *, pairs: bool) -> Check:
    promise = "signatures are those promised, batch and length free"
    signatures = signature_tensors(saved_model)
    token = {"input_ids", "attention_mask", "token_type_ids"}
    answers = set(outputs(problem_type))
    wanted = {
        "serving_default": (set(text_inputs(pairs)), answers, 1),
        "tokens": (token, {"logits"} | (answers & {"probabilities"}), 2),
    }
    for name, (inputs, given, rank) in wanted.items():
        found = signatures.get(name)
        if found is None or set(found.inputs) != inputs or set(found.outputs) != given:
            return Check(promise, False, f"{name} is missing or has other inputs or outputs")
        if any(tensor.shape != (None,) * rank for tensor in found.inputs.values()):
            return Check(promise, False, f"{name} has a fixed batch or length")
    return Check(promise, True, ", ".join(wanted))


def _joined(answers: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([answer[name] for answer in answers]) for name in answers[0]}


def _padded(token_ids: list[list[int]], first_lengths: list[int] | None) -> dict[str, list[list[int]]]:
    longest = max(map(len, token_ids))
    firsts = first_lengths or [len(ids) for ids in token_ids]
    return {
        "input_ids": [ids + [0] * (longest - len(ids)) for ids in token_ids],
        "attention_mask": [[1] * len(ids) + [0] * (longest - len(ids)) for ids in token_ids],
        "token_type_ids": [
            [0] * first + [1] * (len(ids) - first) + [0] * (longest - len(ids))
            for ids, first in zip(token_ids, firsts, strict=True)
        ],
    }


def _close(promise: str, got: np.ndarray, expected: np.ndarray) -> Check:
    if got.shape != expected.shape:
        return Check(promise, False, f"shape {got.shape} where {expected.shape} was expected")
    difference = float(np.abs(got - expected).max())
    return Check(promise, difference <= TOLERANCE, f"largest difference {difference:.1e}")

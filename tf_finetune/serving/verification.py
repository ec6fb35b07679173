"""Does an export answer as its checkpoint does? Asked where TensorFlow Serving would ask: outside Python."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tf_finetune.evaluation.metrics import softmax
from tf_finetune.serving.export import HOSTILE_TEXTS
from tf_finetune.serving.session import run_in_c_api, signature_tensors

if TYPE_CHECKING:
    from tf_finetune.evaluation.classifier import Classifier

TOLERANCE = 1e-4  # of a probability, between two float32 programs that sum in different orders


@dataclasses.dataclass(frozen=True)
class Check:
    """One promise and whether it was kept."""

    promise: str
    kept: bool
    detail: str


def verify(saved_model: Path, classifier: "Classifier") -> list[Check]:
    """Asks the export and its checkpoint the same questions.

    Args:
        saved_model: one version of an export.
        classifier: the checkpoint it was made from, float32.

    Raises:
        InputError: the folder is not a SavedModel.
    """
    checks = [_signatures(saved_model)]
    if not checks[0].kept:
        return checks
    # Asked apart, because the one long text would have all the others padded to its length.
    groups = [list(HOSTILE_TEXTS[:-1]), list(HOSTILE_TEXTS[-1:])]
    requests = [("serving_default", {"text": group}) for group in groups]
    requests += [("tokens", _padded(_ids(classifier, group))) for group in groups]
    promise = "answers through TensorFlow's C API"
    try:
        *answers, from_nothing = run_in_c_api(saved_model, [*requests, ("serving_default", {"text": []})])
    except RuntimeError as error:
        return [*checks, Check(promise, False, str(error))]
    from_text, from_tokens = _joined(answers[:2]), _joined(answers[2:])
    logits = np.concatenate([classifier.logits(group) for group in groups])
    probabilities, shape = softmax(logits), from_nothing["probabilities"].shape
    return [
        *checks,
        Check(promise, True, "in a process without Python TensorFlow"),
        _close("raw text answers as the checkpoint does", from_text["probabilities"], probabilities),
        _close("tokens answer as the checkpoint does", from_tokens["probabilities"], probabilities),
        _close("logits are the checkpoint's", from_tokens["logits"], logits),
        _labels(from_text["label"], probabilities, classifier.label_names),
        _close("score is the label's probability", from_text["score"], from_text["probabilities"].max(axis=-1)),
        Check("an empty batch gets an empty answer", shape == (0, len(classifier.label_names)), f"shape {shape}"),
    ]


def _labels(got: list[str], probabilities: np.ndarray, label_names: tuple[str, ...]) -> Check:
    """A text whose best two labels are within the tolerance may get either."""
    near = probabilities >= probabilities.max(axis=-1, keepdims=True) - 2 * TOLERANCE
    right = [label in np.array(label_names)[row] for label, row in zip(got, near, strict=True)]
    return Check("labels are the checkpoint's", all(right), f"{sum(right)} of {len(right)} equal")


def _signatures(saved_model: Path) -> Check:
    promise = "signatures are those promised, batch and length free"
    signatures = signature_tensors(saved_model)
    token = {"input_ids", "attention_mask", "token_type_ids"}
    wanted = {
        "serving_default": ({"text"}, {"label", "score", "probabilities"}, 1),
        "tokens": (token, {"logits", "probabilities"}, 2),
    }
    for name, (inputs, outputs, rank) in wanted.items():
        found = signatures.get(name)
        if found is None or set(found.inputs) != inputs or set(found.outputs) != outputs:
            return Check(promise, False, f"{name} is missing or has other inputs or outputs")
        if any(tensor.shape != (None,) * rank for tensor in found.inputs.values()):
            return Check(promise, False, f"{name} has a fixed batch or length")
    return Check(promise, True, ", ".join(wanted))


def _ids(classifier: "Classifier", texts: list[str]) -> list[list[int]]:
    return classifier.tokenizer.encode(texts, max_length=classifier.max_length, truncation=classifier.truncation)


def _joined(answers: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([answer[name] for answer in answers]) for name in answers[0]}


def _padded(token_ids: list[list[int]]) -> dict[str, list[list[int]]]:
    longest = max(map(len, token_ids))
    return {
        "input_ids": [ids + [0] * (longest - len(ids)) for ids in token_ids],
        "attention_mask": [[1] * len(ids) + [0] * (longest - len(ids)) for ids in token_ids],
        "token_type_ids": [[0] * longest for _ in token_ids],
    }


def _close(promise: str, got: np.ndarray, expected: np.ndarray) -> Check:
    if got.shape != expected.shape:
        return Check(promise, False, f"shape {got.shape} where {expected.shape} was expected")
    difference = float(np.abs(got - expected).max())
    return Check(promise, difference <= TOLERANCE, f"largest difference {difference:.1e}")

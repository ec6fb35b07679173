"""Does an export answer as its checkpoint does? Asked where TensorFlow Serving would ask: outside Python."""

import dataclasses
from pathlib import Path

import numpy as np

from tf_finetune.evaluation.classifier import Classifier
from tf_finetune.serving.session import run_in_c_api, signature_tensors

TOLERANCE = 1e-4  # of a probability, between two float32 programs that sum in different orders

TEXTS = (
    "The movie was absolutely wonderful, full of joy.",
    "The movie was terrible and boring.",
    "",
    " \t\n ",
    "a",
    "Œuvre naïve, straße, ﬁn… İstanbul ΟΔΥΣΣΕΥΣ",
    "電影很好看 映画は素晴らしい 영화가 좋았다",
    "[MASK] [SEP] literally, and [CLS]",
    "zero\u200bwidth soft\u00adhyphen nul\x00 and \ufffd",
    "emoji 🎬👍🏽 and e\u0301 combined",
    "don't-stop:now!!! (really?) $5.00 #1",
    "x" * 101 + " " + "word " * 600,
)


@dataclasses.dataclass(frozen=True)
class Check:
    """One promise and whether it was kept."""

    promise: str
    kept: bool
    detail: str


def verify(saved_model: Path, classifier: Classifier) -> list[Check]:
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
    ids = classifier.tokenizer.encode(TEXTS, max_length=classifier.max_length, truncation=classifier.truncation)
    tokens = _padded(ids)
    requests = [("serving_default", {"text": list(TEXTS)}), ("tokens", tokens), ("serving_default", {"text": []})]
    try:
        from_text, from_tokens, from_nothing = run_in_c_api(saved_model, requests)
    except RuntimeError as error:
        return [*checks, Check("answers through TensorFlow's C API", False, str(error))]
    checks.append(Check("answers through TensorFlow's C API", True, "in a process without Python TensorFlow"))
    expected = list(classifier.answers(TEXTS))
    probabilities = np.array([list(answer["probabilities"].values()) for answer in expected])
    labels = [answer["label"] for answer in expected]
    checks.append(_close("raw text answers as the checkpoint does", from_text["probabilities"], probabilities))
    checks.append(_close("tokens answer as the checkpoint does", from_tokens["probabilities"], probabilities))
    wrong = [text for text, got, label in zip(TEXTS, from_text["label"], labels, strict=True) if got != label]
    checks.append(Check("labels are the checkpoint's", not wrong, f"{len(TEXTS) - len(wrong)} of {len(TEXTS)} equal"))
    scores = _close("score is the label's probability", from_text["score"], from_text["probabilities"].max(axis=-1))
    shape = from_nothing["probabilities"].shape
    empty = Check("an empty batch gets an empty answer", shape == (0, len(classifier.label_names)), f"shape {shape}")
    return [*checks, scores, empty]


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

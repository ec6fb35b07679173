"""Each promise of an export, held against what it answered."""

import dataclasses
from pathlib import Path

import numpy as np

from tf_finetune.config import ProblemType
from tf_finetune.evaluation.metrics import THRESHOLD, probabilities_of
from tf_finetune.serving.graph import TOKEN_INPUTS, outputs, text_inputs
from tf_finetune.serving.questions import Questions, Task
from tf_finetune.serving.session import Answer, meta_graph, signature_tensors

TOLERANCE = 1e-4  # of a number, or of 1 if that is more, between two float32 programs that sum in different orders
STRINGS = {"text", "text_pair", "label", "labels"}  # the other inputs are int32, the other outputs float32


@dataclasses.dataclass(frozen=True)
class Check:
    """One promise and whether it was kept; None: it could not be looked at, and `detail` says why."""

    promise: str
    kept: bool | None
    detail: str


def signatures(saved_model: Path, task: Task) -> Check:
    """Whether they are those promised."""
    promise = "signatures are those promised, batch and length free"
    found = signature_tensors(saved_model)
    given = set(outputs(task.problem_type))
    wanted = {
        "serving_default": (set(text_inputs(task.pairs)), given, 1),
        "tokens": (set(TOKEN_INPUTS), {"logits"} | (given & {"probabilities"}), 2),
    }
    for name, (inputs, answers, rank) in wanted.items():
        signature = found.get(name)
        if signature is None or set(signature.inputs) != inputs or set(signature.outputs) != answers:
            return Check(promise, False, f"{name} is missing or has other inputs or outputs")
        if any(tensor.shape != (None,) * rank for tensor in signature.inputs.values()):
            return Check(promise, False, f"{name} has a fixed batch or length")
        if any(not tensor.shape or tensor.shape[0] is not None for tensor in signature.outputs.values()):
            return Check(promise, False, f"{name} answers with something that is not an entry a text")
        for kind, tensors in {"int32": signature.inputs, "float32": signature.outputs}.items():
            for key, tensor in tensors.items():
                if tensor.dtype != (expected := "string" if key in STRINGS else kind):
                    return Check(promise, False, f"{key} of {name} is {tensor.dtype} where {expected} was expected")
    return Check(promise, True, ", ".join(wanted))


def label_names(saved_model: Path, task: Task) -> Check:
    """Whether the graph has them, in the order of the probabilities: no text may be answered with some of them."""
    names = [name.encode() for name in task.label_names]
    functions = meta_graph(saved_model).graph_def.library.function
    constants = (
        node.attr["value"].tensor for function in functions for node in function.node_def if node.op == "Const"
    )
    found = any(list(constant.string_val) == names for constant in constants)
    return Check("label names are in the graph, in their order", found, f"{len(names)} names")


def of_texts(answer: Answer, asked: Questions, task: Task, *, what: str = "") -> list[Check]:
    """What `serving_default` answered, against the checkpoint; `what` says which texts, where not the hostile ones."""
    promise = f"raw text answers as the checkpoint does{what}"
    if task.problem_type is ProblemType.REGRESSION:
        return [close(promise, answer["score"], asked.logits[:, 0])]
    probabilities = probabilities_of(asked.logits, task.problem_type)
    checks = [close(promise, answer["probabilities"], probabilities)]
    labels = answer["labels" if task.problem_type is ProblemType.MULTI_LABEL_CLASSIFICATION else "label"]
    if len(labels) != len(probabilities):
        counts = f"{len(labels)} answers to {len(probabilities)} texts"
        return [*checks, Check(f"labels are the checkpoint's{what}", False, counts)]
    if task.problem_type is ProblemType.MULTI_LABEL_CLASSIFICATION:
        return [*checks, _several_labels(labels, probabilities, task, what)]
    score = close(f"score is the label's probability{what}", answer["score"], answer["probabilities"].max(axis=-1))
    return [*checks, _labels(labels, probabilities, task, what), score]


def of_tokens(answer: Answer, asked: Questions, task: Task) -> list[Check]:
    """What `tokens` answered, against the checkpoint."""
    checks = [close("logits are the checkpoint's", answer["logits"], asked.logits)]
    if task.problem_type is not ProblemType.REGRESSION:
        probabilities = probabilities_of(asked.logits, task.problem_type)
        checks.append(close("tokens answer as the checkpoint does", answer["probabilities"], probabilities))
    return checks


def same(promise: str, answer: Answer, other: Answer) -> Check:
    """Whether two answers to the same question agree: numbers within the tolerance, strings to the letter."""
    for name, value in answer.items():
        if not isinstance(value, np.ndarray):
            if value != other[name]:
                return Check(promise, False, f"{name}: {str(other[name])[:60]} where {str(value)[:60]} was expected")
        elif not (check := close(promise, other[name], value)).kept:
            return dataclasses.replace(check, detail=f"{name}: {check.detail}")
    return Check(promise, True, f"{len(next(iter(answer.values())))} texts")


def empty(answer: Answer) -> Check:
    """Whether nothing is answered with nothing."""
    sizes = {name: len(value) for name, value in answer.items()}
    return Check("an empty batch gets an empty answer", not any(sizes.values()), f"sizes {sizes}")


def close(promise: str, got: np.ndarray, expected: np.ndarray) -> Check:
    """Whether numbers are equal within the tolerance."""
    if got.shape != expected.shape:
        return Check(promise, False, f"shape {got.shape} where {expected.shape} was expected")
    difference = float((np.abs(got - expected) / np.maximum(np.abs(expected), 1)).max(initial=0.0))
    return Check(promise, difference <= TOLERANCE, f"largest difference {difference:.1e}")  # NaN is no such number


def _several_labels(got: list[str], probabilities: np.ndarray, task: Task, what: str) -> Check:
    """A class whose probability is within the tolerance of the threshold may be answered or not."""
    answered = np.array(got).reshape(probabilities.shape) == np.array(task.label_names)
    sure = np.abs(probabilities - THRESHOLD) > TOLERANCE
    right = (answered == (probabilities >= THRESHOLD))[sure]
    return Check(f"labels are the checkpoint's{what}", bool(right.all()), f"{right.sum()} of {right.size} equal")


def _labels(got: list[str], probabilities: np.ndarray, task: Task, what: str) -> Check:
    """A text whose best two labels are within the tolerance may get either."""
    near = probabilities >= probabilities.max(axis=-1, keepdims=True) - 2 * TOLERANCE
    names = np.array(task.label_names)
    right = [label in names[row] for label, row in zip(got, near, strict=True)]
    return Check(f"labels are the checkpoint's{what}", all(right), f"{sum(right)} of {len(right)} equal")

"""What a client of TensorFlow Serving sends and gets: REST's JSON in both forms, and gRPC's messages."""

import importlib.util
import json

import numpy as np

from tf_finetune.serving import rest
from tf_finetune.serving.answers import Check, same
from tf_finetune.serving.questions import Questions
from tf_finetune.serving.session import Answer

FORMS = {"row": True, "columnar": False}
GRPC = "answers travel as PredictResponse"


def through_rest(asked: Questions, *, row: bool) -> tuple[str, dict[str, list]]:
    """The request that the server would run for the body a client sends."""
    body = rest.request_body(asked.texts, row=row)
    return rest.inputs_of(body, list(asked.texts))


def check_rest(expected: Answer, answered: dict[str, Answer]) -> Check:
    """Whether both forms carry the texts in and the answers out.

    Args:
        expected: what was answered to the texts themselves.
        answered: what was answered to `through_rest`, by form.
    """
    promise = "answers travel as REST's JSON, row and columnar"
    for form, row in FORMS.items():
        try:
            body = rest.response_body(answered[form], row=row)
            content = json.loads(body, parse_constant=_refused)
        except ValueError as error:
            return Check(promise, False, f"{form}: {error}")
        columns = _columns(content, list(expected), row=row)
        read = {
            name: np.array(columns[name], value.dtype) if isinstance(value, np.ndarray) else columns[name]
            for name, value in expected.items()
        }
        if not (check := same(promise, expected, read)).kept:
            return Check(promise, False, f"{form}: {check.detail}")
    return check


def check_grpc(expected: Answer) -> Check:
    """Whether gRPC's message carries the answers; tensorflow-serving-api has it."""
    if importlib.util.find_spec("tensorflow_serving") is None:
        return Check(GRPC, None, "tensorflow-serving-api is not installed: pip install 'tf_finetune[serving]'")
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2

    response = predict_pb2.PredictResponse()
    for name, value in expected.items():
        response.outputs[name].CopyFrom(tf.make_tensor_proto(value))
    read = predict_pb2.PredictResponse.FromString(response.SerializeToString()).outputs
    arrays = {name: tf.make_ndarray(read[name]) for name in expected}
    return same(GRPC, expected, {name: _texts(array) for name, array in arrays.items()})


def _texts(array: np.ndarray) -> np.ndarray | list:
    """Strings as a list of str, and of lists where a text has several; numbers as they are."""
    return np.vectorize(bytes.decode, otypes=[object])(array).tolist() if array.dtype == object else array


def _columns(content: dict, names: list[str], *, row: bool) -> dict[str, list]:
    """A response's outputs by key."""
    if row:
        entries = [entry if len(names) > 1 else {names[0]: entry} for entry in content["predictions"]]
        return {name: [entry[name] for entry in entries] for name in names}
    return content["outputs"] if len(names) > 1 else {names[0]: content["outputs"]}


def _refused(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")

"""Requests that TensorFlow Serving asks an export itself after loading, before it takes traffic.

They are a TFRecord of `tensorflow.serving.PredictionLog`. Of its messages this declares the fields that it needs, under
their numbers, so that writing and reading them takes no tensorflow-serving-api, which asks for the newest TensorFlow;
the tests read the records with that. Tensors are bytes here: on the wire a message is no different.

https://www.tensorflow.org/tfx/serving/saved_model_warmup
"""

import functools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tf_finetune.serving.answers import Check
from tf_finetune.serving.questions import Questions
from tf_finetune.serving.session import Answer

RECORDS = Path("assets.extra") / "tf_serving_warmup_requests"

Request = tuple[str, Mapping[str, Any]]  # the signature's name, and each input's value by its key


def write(saved_model: Path, requests: Iterable[Request]) -> None:
    """Writes a record a request.

    Args:
        saved_model: the folder of one exported version.
        requests: at most 1,000, the server's limit.
    """
    import tensorflow as tf

    (saved_model / RECORDS).parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(saved_model / RECORDS)) as writer:
        for signature, inputs in requests:
            log = _prediction_log()()
            log.predict_log.request.model_spec.signature_name = signature
            for name, value in inputs.items():
                log.predict_log.request.inputs[name] = tf.make_tensor_proto(value).SerializeToString()
            writer.write(log.SerializeToString(deterministic=True))


def read(saved_model: Path) -> list[Request] | None:
    """The requests as they were written, strings as bytes; None where the file is missing or damaged."""
    import tensorflow as tf
    from google.protobuf.message import DecodeError
    from tensorflow.core.framework.tensor_pb2 import TensorProto

    def inputs(request) -> dict[str, np.ndarray]:
        return {name: tf.make_ndarray(TensorProto.FromString(tensor)) for name, tensor in request.inputs.items()}

    try:
        records = list(tf.data.TFRecordDataset(str(saved_model / RECORDS)).as_numpy_iterator())
        logs = [_prediction_log().FromString(record).predict_log.request for record in records]
        return [(request.model_spec.signature_name, inputs(request)) for request in logs]
    except (tf.errors.OpError, DecodeError, ValueError, TypeError):
        return None


def requests(asked: Questions) -> list[Request]:
    """What warms up each signature: one short text, one long one, and both among others."""
    ends = asked.some(slice(0, 1)), asked.some(slice(-1, None)), asked
    return [request for some in ends for request in (("serving_default", some.texts), ("tokens", some.tokens))]


def check(recorded: list[Request] | None, answered: list[Answer]) -> Check:
    """Whether the records could be read and were answered, for every signature."""
    promise = "warmup requests are answered"
    if not recorded:
        return Check(promise, False, f"{RECORDS} is missing, damaged or empty")
    for (signature, inputs), answer in zip(recorded, answered, strict=True):
        sizes = {len(value) for value in (*inputs.values(), *answer.values())}
        if len(sizes) > 1:
            return Check(promise, False, f"a request to {signature} got an answer of another batch")
    return Check(promise, True, f"{len(recorded)} requests to {', '.join(sorted({name for name, _ in recorded}))}")


@functools.cache
def _prediction_log() -> type:
    """The class of a PredictionLog that knows of a PredictLog's request only."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    types = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="warmup.proto", package="tf_finetune.serving", syntax="proto3")

    def message(name: str, *fields: tuple[str, int, str], within=file.message_type):
        made = within.add(name=name)
        for field, number, of in fields:
            kind = {"string": types.TYPE_STRING, "bytes": types.TYPE_BYTES}.get(of, types.TYPE_MESSAGE)
            of_type = f".tf_finetune.serving.{of}" if kind == types.TYPE_MESSAGE else None
            made.field.add(name=field, number=number, type=kind, type_name=of_type, label=types.LABEL_OPTIONAL)
        return made

    message("ModelSpec", ("name", 1, "string"), ("signature_name", 3, "string"))
    request = message("PredictRequest", ("model_spec", 1, "ModelSpec"), ("inputs", 2, "PredictRequest.InputsEntry"))
    request.field[1].label = types.LABEL_REPEATED
    message("InputsEntry", ("key", 1, "string"), ("value", 2, "bytes"), within=request.nested_type)
    request.nested_type[0].options.map_entry = True
    message("PredictLog", ("request", 1, "PredictRequest"))
    message("PredictionLog", ("predict_log", 6, "PredictLog"))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("tf_finetune.serving.PredictionLog"))

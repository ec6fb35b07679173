"""Checkpoint -> ONNX, in float32 and as int8, for onnxruntime and other runtimes."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tf_finetune.serving.onnx_graph import bert_graph

if TYPE_CHECKING:
    from tf_finetune.bert.model import TFBertForSequenceClassification

FLOAT32, INT8 = "model.onnx", "model_int8.onnx"


def save_onnx(model: "TFBertForSequenceClassification", folder: Path) -> None:
    """Writes FLOAT32 and INT8 into the folder; `onnx_graph.bert_graph` says what they take and give.

    In INT8 weights have seven bits, and a scale a column: on processors with AVX2 and no VNNI two products are summed
    in 16 bits, which eight bits overflow. Activations are quantised as they come, with one scale for the whole batch,
    so that the answer for a text moves a little with the others of its batch.

    Args:
        model: float32, built.
        folder: an existing one.
    """
    import onnx
    from onnx import helper
    from onnxruntime.quantization import QuantType, quantize_dynamic

    graph = bert_graph(model)
    # Else onnxruntime logs that its own clean-up of the graph should come first; here is nothing to clean up.
    helper.set_model_props(graph, {"onnx.quant.pre_process": "onnxruntime.quant"})
    onnx.save(graph, folder / FLOAT32)
    quantize_dynamic(folder / FLOAT32, folder / INT8, weight_type=QuantType.QInt8, per_channel=True, reduce_range=True)


def onnx_logits(path: Path) -> Callable[[dict[str, np.ndarray]], np.ndarray]:
    """Loads a file of `save_onnx`; returns the function of the inputs by name that gives the logits."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda inputs: session.run(["logits"], inputs)[0]

"""Checkpoint -> LiteRT (once TensorFlow Lite): token ids in, logits out, weights as int8."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tf_finetune.bert.layers import MASKED_SCORE
from tf_finetune.serving.graph import TOKEN_INPUTS

if TYPE_CHECKING:
    from tf_finetune.bert.model import TFBertForSequenceClassification

SIGNATURE = "serving_default"


def save_litert(model: "TFBertForSequenceClassification", path: Path) -> None:
    """Writes a .tflite file with the signature `serving_default`: int32 `input_ids`, `attention_mask`,
    `token_type_ids` (batch, length), both dimensions free -> `logits` float32 (batch, num_labels).

    Weights are int8, a scale a row of a matrix; activations are quantised as they come (dynamic range), so that no
    example data is needed. Biases, LayerNorms and the products inside attention stay float32.

    Args:
        model: float32, built.
        path: of the file.
    """
    import tensorflow as tf

    bert = model.bert

    @tf.function(input_signature=[tf.TensorSpec([None, None], tf.int32, name) for name in TOKEN_INPUTS])
    def logits(input_ids, attention_mask, token_type_ids):
        # The model's own call, but for slices with new axes, which the converter has no operation for.
        batch, length = tf.unstack(tf.shape(input_ids))
        padding = (1.0 - tf.cast(attention_mask, tf.float32)) * MASKED_SCORE
        score_bias = tf.reshape(padding, tf.stack([batch, 1, 1, length]))
        hidden = bert.embeddings(input_ids, token_type_ids, tf.expand_dims(tf.range(length), 0), training=False)
        for block in bert.encoder:
            hidden = block(hidden, score_bias, training=False, first_only=block is bert.encoder[-1])
        return {"logits": model.classifier(bert.pooler(hidden))}

    module = tf.Module()
    module.weights = [variable.value for variable in model.variables]
    converter = tf.lite.TFLiteConverter.from_concrete_functions([logits.get_concrete_function()], module)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    path.write_bytes(converter.convert())


def litert_logits(path: Path, *, num_threads: int | None = None) -> Callable[[dict[str, np.ndarray]], np.ndarray]:
    """Loads a file of `save_litert`; returns the function of the inputs by name that gives the logits."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=num_threads)
    interpreter.allocate_tensors()
    runner = interpreter.get_signature_runner(SIGNATURE)
    return lambda inputs: runner(**inputs)["logits"]

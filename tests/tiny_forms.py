"""Tiny classifiers of every kind, and batches for them."""

import keras
import numpy as np

from tf_finetune.bert.architecture import BertArchitecture
from tf_finetune.bert.model import TFBertForSequenceClassification

VOCABULARY = 50


def tiny_model(**options):
    """Large weights, so that answers differ; biases and LayerNorms that are not 0 and 1, so that each one counts."""
    sizes = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": 40,
        "initializer_range": 0.3,
        "layer_norm_eps": 1e-3,
    }
    keras.utils.set_random_seed(0)
    model = TFBertForSequenceClassification(BertArchitecture(**sizes | options))
    model.build()
    random = np.random.default_rng(0)
    for weight in model.weights:
        if len(weight.shape) == 1:
            weight.assign(weight + random.normal(0, 0.2, weight.shape))
    return model


def batch(lengths, *, width=None, pairs=False):
    """A text of each length, padded to the longest or to `width`; of pairs the last third is of type 1."""
    random = np.random.default_rng(sum(lengths))
    width = width or max(lengths)
    inputs = {name: np.zeros((len(lengths), width), np.int32) for name in ("input_ids", "attention_mask")}
    inputs["token_type_ids"] = np.zeros((len(lengths), width), np.int32)
    for row, length in enumerate(lengths):
        inputs["input_ids"][row, :length] = random.integers(5, VOCABULARY, length)
        inputs["attention_mask"][row, :length] = 1
        if pairs:
            inputs["token_type_ids"][row, length - length // 3 : length] = 1
    return inputs


def answer_of(model, inputs):
    return np.asarray(model(inputs, training=False))

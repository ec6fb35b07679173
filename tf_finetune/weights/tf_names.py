"""TensorFlow's names of BERT's weights, and PyTorch's for the same.

TensorFlow names a weight by its place in the graph (`bert/encoder/layer_0/attention/self/query/kernel`) and
stores dense kernels as (in, out).
"""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tf_finetune.weights.stored_tensor import StoredTensor

# Last part of a TensorFlow name -> of PyTorch's. The embedding tables of Google's release end without one.
LAST = {"kernel": "weight", "gamma": "weight", "beta": "bias", "embeddings": "weight"}
TABLES = ("word_embeddings", "position_embeddings", "token_type_embeddings")
# run_classifier.py kept the classifier outside of any scope.
GOOGLE_HEAD = {"output_weights": "classifier.weight", "output_bias": "classifier.bias"}
# What an optimizer of Google's left in a checkpoint beside the weights.
OPTIMIZER_STATE = re.compile(r"(^|/)(global_step|adam_[mv]|Adam(_1)?|lamb_[mv]|beta[12]_power|LAMB.*)$")


def pytorch_name(name: str) -> str | None:
    """`tf_bert_model/bert/encoder/layer_._0/output/dense/kernel:0` -> `bert.encoder.layer.0.output.dense.weight`.

    None for what an optimizer left there.
    """
    name = name.removesuffix(":0")
    if OPTIMIZER_STATE.search(name):
        return None
    if name in GOOGLE_HEAD:
        return GOOGLE_HEAD[name]
    parts = [part.rpartition("___")[2] for part in name.split("/")]
    roots = [index for index, part in enumerate(parts) if part in ("bert", "classifier", "cls")]
    parts = parts[roots[-1] :] if roots else parts  # before it stand the model's own name and the file's groups
    parts = [re.sub(r"^layer_(\._)?(\d+)$", r"layer.\2", part) for part in parts]
    if parts[-1] in TABLES:
        parts.append("weight")
    parts[-1] = LAST.get(parts[-1], parts[-1])
    return ".".join(parts)


def tensor_by_tf_name(
    name: str, file: Path, shape: tuple[int, ...], rows: Callable[[int, int], np.ndarray]
) -> dict[str, StoredTensor]:
    """A tensor of a TensorFlow file under its PyTorch name and in PyTorch's layout; empty for optimizer state.

    Args:
        name: of the tensor in the file.
        file: that holds it.
        shape: there.
        rows: reads rows there.
    """
    modern = pytorch_name(name)
    if modern is None:
        return {}
    if len(shape) == 2 and name.removesuffix(":0").endswith("kernel"):
        # Rows of the transposed tensor are columns of the stored one: a kernel is small enough to be read whole.
        return {
            modern: StoredTensor(
                name=name,
                file=file,
                shape=shape[::-1],
                rows=lambda start, stop: rows(0, shape[0])[:, start:stop].T,
            )
        }
    return {modern: StoredTensor(name=name, file=file, shape=shape, rows=rows)}

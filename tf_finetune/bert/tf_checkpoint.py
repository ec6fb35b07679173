"""TensorFlow's checkpoints of BERT: tf_model.h5 of the old TF classes, and Google's original release.

Both name a weight by its place in the graph (`bert/encoder/layer_0/attention/self/query/kernel`) and store
dense kernels as (in, out). What they need (h5py, TensorFlow) is imported when called.
"""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tf_finetune.bert.stored_weights import StoredTensor
from tf_finetune.errors import InputError

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


def keras_weights(path: Path) -> dict[str, StoredTensor]:
    """The tensors of a tf_model.h5.

    Raises:
        InputError: not an HDF5 file, damaged, or one that points at data outside of itself.
    """
    import h5py

    tensors: dict[str, StoredTensor] = {}

    def visit(name: str, item) -> None:
        layer = name.split("/")[0]
        # The head of pretraining shares the embeddings, and keeps a copy of them.
        if not isinstance(item, h5py.Dataset) or layer.endswith("___cls") or layer == "optimizer_weights":
            return
        if item.external or item.is_virtual:
            raise InputError(f"tensor {name} lies in another file", where=path, expected="data in this file alone")
        for modern, tensor in tensor_by_tf_name(name, path, item.shape, _dataset_reader(path, name)).items():
            if modern in tensors:
                raise InputError(f"tensor {modern} is stored twice", where=path, got=f"{tensors[modern].name}, {name}")
            tensors[modern] = tensor

    try:
        with h5py.File(path, "r") as file:
            file.visititems(visit)  # passes over links out of the file
    except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise InputError("unreadable weights", where=path, expected="an HDF5 file", got=str(error)) from None
    return tensors


def _dataset_reader(path: Path, name: str) -> Callable[[int, int], np.ndarray]:
    def rows(start: int, stop: int) -> np.ndarray:
        import h5py

        try:
            with h5py.File(path, "r") as file:
                return file[name][start:stop]
        except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"unreadable tensor {name}", where=path, got=str(error)) from None

    return rows


def google_weights(indices: list[Path]) -> dict[str, StoredTensor]:
    """The tensors of a TensorFlow 1 checkpoint, such as Google's bert_model.ckpt.

    Args:
        indices: the `*.ckpt*.index` files of the folder.

    Raises:
        InputError: there are several, TensorFlow is not installed, or the checkpoint cannot be read.
    """
    if len(indices) > 1:
        names = ", ".join(path.name for path in indices)
        raise InputError("several TensorFlow checkpoints", where=indices[0].parent, expected="one", got=names)
    index, prefix = indices[0], str(indices[0]).removesuffix(".index")
    try:
        import tensorflow as tf
    except ImportError:
        raise InputError(
            "a TensorFlow checkpoint is read with TensorFlow, which is not installed", where=index
        ) from None
    try:
        reader = tf.train.load_checkpoint(prefix)
        shapes = reader.get_variable_to_shape_map()
    except (tf.errors.OpError, ValueError, RuntimeError) as error:
        raise InputError(
            "unreadable weights", where=index, expected="a TensorFlow checkpoint", got=_first(error)
        ) from None

    def reader_of(name: str) -> Callable[[int, int], np.ndarray]:
        def rows(start: int, stop: int) -> np.ndarray:
            try:
                return reader.get_tensor(name)[start:stop]
            except (tf.errors.OpError, ValueError, RuntimeError) as error:
                raise InputError(f"unreadable tensor {name}", where=prefix, got=_first(error)) from None

        return rows

    tensors: dict[str, StoredTensor] = {}
    for name, shape in shapes.items():
        tensors |= tensor_by_tf_name(name, index, tuple(shape), reader_of(name))
    return tensors


def _first(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]

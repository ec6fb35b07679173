"""TensorFlow's checkpoints of BERT: tf_model.h5 of the old TF classes, and Google's original release.

Both name a weight by its place in the graph (`bert/encoder/layer_0/attention/self/query/kernel`) and store
dense kernels as (in, out). What they need (h5py, TensorFlow) is imported when called.
"""

import functools
import math
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tf_finetune.bert.stored_weights import StoredTensor, reason, united
from tf_finetune.bert.tf_checkpoint_index import checked_entries
from tf_finetune.errors import InputError

# Last part of a TensorFlow name -> of PyTorch's. The embedding tables of Google's release end without one.
LAST = {"kernel": "weight", "gamma": "weight", "beta": "bias", "embeddings": "weight"}
TABLES = ("word_embeddings", "position_embeddings", "token_type_embeddings")
# run_classifier.py kept the classifier outside of any scope.
GOOGLE_HEAD = {"output_weights": "classifier.weight", "output_bias": "classifier.bias"}
LARGE_BYTES = 32 * 2**20
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

    parts: list[dict[str, StoredTensor]] = []

    def visit(name: str, item) -> None:
        layer = name.split("/")[0]
        # The head of pretraining shares the embeddings, and keeps a copy of them.
        if not isinstance(item, h5py.Dataset) or layer.endswith("___cls") or layer == "optimizer_weights":
            return
        if item.external or item.is_virtual:
            raise InputError(f"tensor {name} lies in another file", where=path, expected="data in this file alone")
        if item.shape is None or item.id.get_storage_size() == 0:
            raise InputError(f"tensor {name} has no data", where=path)
        parts.append(tensor_by_tf_name(name, path, item.shape, _dataset_reader(path, name)))

    try:
        with h5py.File(path, "r") as file:
            file.visititems(visit)  # passes over links out of the file
    except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise InputError("unreadable weights", where=path, expected="an HDF5 file", got=reason(error)) from None
    return united(parts)


def _dataset_reader(path: Path, name: str) -> Callable[[int, int], np.ndarray]:
    def rows(start: int, stop: int) -> np.ndarray:
        import h5py

        try:
            with h5py.File(path, "r") as file:
                return file[name][start:stop]
        except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"unreadable tensor {name}", where=path, got=reason(error)) from None

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
    entries = checked_entries(index)
    faults = (tf.errors.OpError, ValueError, RuntimeError, LookupError)
    try:
        reader = tf.train.load_checkpoint(prefix)
        shapes = reader.get_variable_to_shape_map()
    except faults as error:
        raise InputError(
            "unreadable weights", where=index, expected="a TensorFlow checkpoint", got=reason(error)
        ) from None

    @functools.lru_cache(
        maxsize=1
    )  # TensorFlow reads a tensor as a whole; it is kept for as long as rows are asked for
    def whole(name: str) -> np.ndarray:
        try:
            return reader.get_tensor(name)
        except faults as error:
            raise InputError(f"unreadable tensor {name}", where=index, got=reason(error)) from None

    def rows(name: str, start: int, stop: int) -> np.ndarray:
        return whole(name)[start:stop]

    data = Path(f"{prefix}.data-00000-of-00001")
    held = data.stat().st_size if data.is_file() else 0

    def reader_of(name: str, shape: tuple[int, ...]) -> Callable[[int, int], np.ndarray]:
        entry = entries.get(name)
        if entry is None or entry.dtype != tf.float32.as_datatype_enum or entry.size < LARGE_BYTES:
            return functools.partial(rows, name)
        if entry.offset + entry.size > held or pytorch_name(name) is None:
            return functools.partial(rows, name)
        # TensorFlow keeps the memory that it read a tensor to, and gives it to its next tensor. So it reads a large one
        # now, for the checksum, and lets go of it; the rows come from the file when the model has taken that memory.
        whole(name)
        whole.cache_clear()
        return functools.partial(_file_rows, data, entry.offset, shape)

    return united(
        tensor_by_tf_name(name, index, tuple(shape), reader_of(name, tuple(shape))) for name, shape in shapes.items()
    )


def _file_rows(data: Path, offset: int, shape: tuple[int, ...], start: int, stop: int) -> np.ndarray:
    row = math.prod(shape[1:])
    values = np.fromfile(data, np.dtype("<f4"), (stop - start) * row, offset=offset + 4 * start * row)
    return values.reshape(-1, *shape[1:])

"""Tensors of a TensorFlow 1 checkpoint, as Google released BERT; TensorFlow is imported when called."""

import functools
import importlib.util
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tf_finetune.errors import InputError
from tf_finetune.weights.stored_tensor import StoredTensor, reason, united
from tf_finetune.weights.tf_checkpoint_index import checked_entries
from tf_finetune.weights.tf_names import pytorch_name, tensor_by_tf_name

LARGE_BYTES = 32 * 2**20


def google_weights(indices: list[Path]) -> dict[str, StoredTensor]:
    """The tensors by PyTorch's names.

    Args:
        indices: the `*.ckpt*.index` files of the folder.

    Raises:
        InputError: there are several, TensorFlow is not installed, or the checkpoint cannot be read.
    """
    if len(indices) > 1:
        names = ", ".join(path.name for path in indices)
        raise InputError("several TensorFlow checkpoints", where=indices[0].parent, expected="one", got=names)
    if importlib.util.find_spec("tensorflow") is None:
        what = "a TensorFlow checkpoint is read with TensorFlow, which is not installed"
        raise InputError(what, where=indices[0])
    checkpoint = _Checkpoint(indices[0])
    return united(
        tensor_by_tf_name(name, checkpoint.index, shape, checkpoint.rows_of(name, shape))
        for name, shape in checkpoint.shapes.items()
    )


class _Checkpoint:
    """TensorFlow's reader of one checkpoint, which checks the checksum of each tensor it reads."""

    def __init__(self, index: Path):
        import tensorflow as tf

        self.index, prefix = index, str(index).removesuffix(".index")
        self.data = Path(f"{prefix}.data-00000-of-00001")
        self.faults = (tf.errors.OpError, ValueError, RuntimeError, LookupError)
        self.entries = checked_entries(index)
        if Path(prefix).exists():  # TensorFlow would rather look there
            raise InputError("unreadable weights", where=prefix, expected="no file or folder of this name")
        try:
            self.reader = tf.compat.v1.train.NewCheckpointReader(prefix)
            self.shapes = {name: tuple(shape) for name, shape in self.reader.get_variable_to_shape_map().items()}
        except self.faults as error:
            expected = "a TensorFlow checkpoint"
            raise InputError("unreadable weights", where=index, expected=expected, got=reason(error)) from None
        self._last: tuple[str, np.ndarray] | None = None

    def rows_of(self, name: str, shape: tuple[int, ...]) -> Callable[[int, int], np.ndarray]:
        """What reads rows of a tensor."""
        if pytorch_name(name) is None or not self._is_large(name):
            return functools.partial(self._rows, name)
        # TensorFlow keeps the memory that it read a tensor to, and gives it to its next tensor. So it reads a large one
        # now, for the checksum, and lets go of it; the rows come from the file when the model has taken that memory.
        self._rows(name, 0, 0)
        self._last = None
        return functools.partial(_file_rows, self.data, self.entries[name].offset, shape)

    def _rows(self, name: str, start: int, stop: int) -> np.ndarray:
        from tensorflow.core.framework import types_pb2

        floats = (types_pb2.DT_FLOAT, types_pb2.DT_HALF, types_pb2.DT_BFLOAT16, types_pb2.DT_DOUBLE)
        if self.entries[name].dtype not in floats:  # reading damaged strings would end the process
            got = types_pb2.DataType.Name(self.entries[name].dtype)
            expected = "floating-point numbers"
            raise InputError(f"tensor {name} holds no weights", where=self.index, expected=expected, got=got)
        if self._last is None or self._last[0] != name:  # read as a whole, and kept while rows of it are asked for
            try:
                self._last = name, self.reader.get_tensor(name)
            except self.faults as error:
                raise InputError(f"unreadable tensor {name}", where=self.index, got=reason(error)) from None
        return self._last[1][start:stop]

    def _is_large(self, name: str) -> bool:
        """Whether it is float32, large, and whole in the one file of data."""
        from tensorflow.core.framework import types_pb2

        entry = self.entries.get(name)
        if entry is None or entry.dtype != types_pb2.DT_FLOAT or entry.size < LARGE_BYTES:
            return False
        return self.data.is_file() and entry.offset + entry.size <= self.data.stat().st_size


def _file_rows(data: Path, offset: int, shape: tuple[int, ...], start: int, stop: int) -> np.ndarray:
    row = math.prod(shape[1:])
    values = np.fromfile(data, np.dtype("<f4"), (stop - start) * row, offset=offset + 4 * start * row)
    return values.reshape(-1, *shape[1:])

"""Tensors of one safetensors file, as PyTorch or as the old TF classes wrote it."""

from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from tf_finetune.bert.stored_weights import StoredTensor
from tf_finetune.bert.tf_checkpoint import tensor_by_tf_name
from tf_finetune.errors import InputError


def safetensors_weights(path: Path) -> dict[str, StoredTensor]:
    """The tensors by PyTorch's names. Those of the TF classes have slashes: `bert/pooler/dense/kernel:0`.

    Raises:
        InputError: not a safetensors file, or one whose header cannot be true.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError("unreadable weights", where=path, expected="a safetensors file", got=str(error)) from None
    tensors = {}
    for name, shape in shapes.items():
        if "/" in name:
            tensors |= tensor_by_tf_name(name, path, shape, _reader(path, name))
        else:
            tensors[name] = StoredTensor(name=name, file=path, shape=shape, rows=_reader(path, name))
    return tensors


def _reader(path: Path, name: str):
    def rows(start: int, stop: int) -> np.ndarray:
        try:
            # Opened for each read: pages of a mapped file count as memory for as long as it stays open.
            with safe_open(path, framework="numpy") as file:
                return file.get_slice(name)[start:stop]
        except (SafetensorError, OSError, AttributeError, TypeError) as error:  # numpy has no such precision
            raise InputError(f"unreadable tensor {name}", where=path, got=str(error)) from None

    return rows

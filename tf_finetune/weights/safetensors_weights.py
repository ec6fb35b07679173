"""Tensors of one safetensors file, as PyTorch or as the old TF classes wrote it."""

from collections.abc import Callable
from pathlib import Path

import ml_dtypes  # noqa: F401  makes bfloat16 known to numpy
import numpy as np
from safetensors import SafetensorError, safe_open

from tf_finetune.errors import InputError
from tf_finetune.weights.stored_tensor import StoredTensor, reason, united
from tf_finetune.weights.tf_names import tensor_by_tf_name

PRECISIONS = ("F64", "F32", "F16", "BF16")


def safetensors_weights(path: Path) -> dict[str, StoredTensor]:
    """The tensors by PyTorch's names. Those of the TF classes have slashes: `bert/pooler/dense/kernel:0`.

    Raises:
        InputError: not a safetensors file, or one whose header cannot be true.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            kinds = {name: (tuple(part.get_shape()), part.get_dtype()) for name, part in slices.items()}
    except (SafetensorError, OSError) as error:
        raise InputError("unreadable weights", where=path, expected="a safetensors file", got=reason(error)) from None
    return united(_tensor(name, path, *kind) for name, kind in kinds.items())


def _tensor(name: str, path: Path, shape: tuple[int, ...], precision: str) -> dict[str, StoredTensor]:
    rows = _reader(path, name, precision)
    if "/" in name:
        return tensor_by_tf_name(name, path, shape, rows)
    return {name: StoredTensor(name=name, file=path, shape=shape, rows=rows)}


def _reader(path: Path, name: str, precision: str) -> Callable[[int, int], np.ndarray]:
    def rows(start: int, stop: int) -> np.ndarray:
        if precision not in PRECISIONS:
            expected = f"one of {', '.join(PRECISIONS)}"
            raise InputError(f"tensor {name} holds no weights", where=path, expected=expected, got=precision)
        try:
            # Opened for each read: pages of a mapped file count as memory for as long as it stays open.
            with safe_open(path, framework="numpy") as file:
                return file.get_slice(name)[start:stop]
        except (SafetensorError, OSError) as error:
            raise InputError(f"unreadable tensor {name}", where=path, got=reason(error)) from None

    return rows

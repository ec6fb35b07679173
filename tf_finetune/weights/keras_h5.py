"""Tensors of a tf_model.h5, which the TF classes of `transformers` wrote up to version 4."""

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

from tf_finetune.errors import InputError
from tf_finetune.weights.stored_tensor import StoredTensor, reason, united
from tf_finetune.weights.tf_names import tensor_by_tf_name


def keras_weights(path: Path) -> dict[str, StoredTensor]:
    """The tensors of a tf_model.h5.

    Raises:
        InputError: not an HDF5 file, damaged, or one that points at data outside of itself.
    """
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
        try:
            with h5py.File(path, "r") as file:
                return file[name][start:stop]
        except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"unreadable tensor {name}", where=path, got=reason(error)) from None

    return rows

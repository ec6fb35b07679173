"""Tensors of a tf_model.h5, which the TF classes of `transformers` wrote up to version 4."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np

from tf_finetune.errors import InputError
from tf_finetune.weights.stored_tensor import StoredTensor, reason, united
from tf_finetune.weights.tf_names import tensor_by_tf_name

# Groups within groups: the layer, the model's name, and a level for each part of a weight's name.
DEEPEST = 16
LARGEST_CHUNK = 2**20


def keras_weights(path: Path) -> dict[str, StoredTensor]:
    """The tensors of a tf_model.h5.

    Raises:
        InputError: not an HDF5 file, damaged, or one that points at data outside of itself.
    """
    try:
        with h5py.File(path, "r") as file:
            return united(
                tensor_by_tf_name(name, path, item.shape, _dataset_reader(path, name))
                for name, item in _datasets(file, path)
            )
    except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise InputError("unreadable weights", where=path, expected="an HDF5 file", got=reason(error)) from None


def _datasets(
    group: h5py.Group, path: Path, *, depth: int = 0, seen: frozenset = frozenset()
) -> Iterator[tuple[str, h5py.Dataset]]:
    """The weights below a group by their names. Links, which may lead out of the file, are not followed."""
    address = h5py.h5o.get_info(group.id).addr
    if address in seen:  # a group inside itself
        return
    if depth > DEEPEST:
        raise InputError("groups nested too deep", where=path, expected=f"at most {DEEPEST}")
    for key in group:
        # The head of pretraining shares the embeddings, and keeps a copy of them.
        if depth == 0 and (key.endswith("___cls") or key == "optimizer_weights"):
            continue
        if not isinstance(group.get(key, getlink=True), h5py.HardLink):
            continue
        item = group[key]
        if isinstance(item, h5py.Group):
            yield from _datasets(item, path, depth=depth + 1, seen=seen | {address})
        elif isinstance(item, h5py.Dataset):
            name = item.name.removeprefix("/")
            _check(name, item, path)
            yield name, item


def _check(name: str, item: h5py.Dataset, path: Path) -> None:
    """Refuses what would be read from elsewhere, or would take more memory to read than it holds."""
    if item.external or item.is_virtual:
        raise InputError(f"tensor {name} lies in another file", where=path, expected="data in this file alone")
    if item.shape is None or item.id.get_storage_size() == 0:
        raise InputError(f"tensor {name} has no data", where=path)
    if item.dtype.kind != "f":
        expected = "floating-point numbers"
        raise InputError(f"tensor {name} holds no weights", where=path, expected=expected, got=str(item.dtype)[:40])
    if item.chunks and math.prod(item.chunks) > max(item.size, LARGEST_CHUNK):
        raise InputError(f"tensor {name} is smaller than its chunk", where=path, got=f"chunk {item.chunks}")


def _dataset_reader(path: Path, name: str) -> Callable[[int, int], np.ndarray]:
    def rows(start: int, stop: int) -> np.ndarray:
        try:
            with h5py.File(path, "r") as file:
                return file[name][start:stop]
        except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"unreadable tensor {name}", where=path, got=reason(error)) from None

    return rows

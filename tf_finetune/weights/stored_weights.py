"""The tensors of a checkpoint folder, whichever of the known files it has, under PyTorch's names and not read yet."""

import os
from collections.abc import Callable
from pathlib import Path

from tf_finetune import json_files
from tf_finetune.errors import InputError
from tf_finetune.weights.keras_h5 import keras_weights
from tf_finetune.weights.safetensors_weights import safetensors_weights
from tf_finetune.weights.stored_tensor import StoredTensor, united
from tf_finetune.weights.tf_checkpoint import google_weights
from tf_finetune.weights.torch_weights import torch_weights

SAFETENSORS, TORCH, KERAS = "model.safetensors", "pytorch_model.bin", "tf_model.h5"
LONGEST_NAME = 250


def stored_weights(folder: Path, *, from_pt: bool = False) -> dict[str, StoredTensor]:
    """Finds a checkpoint's weights; nothing but names and shapes is read.

    The first of these that is there: model.safetensors (of PyTorch or of the old TF classes), its shards,
    tf_model.h5, Google's *.ckpt.index with its data, pytorch_model.bin, its shards.

    Args:
        folder: of the checkpoint.
        from_pt: consider only the files that PyTorch writes.

    Returns:
        The tensors by their PyTorch names, as those were when they were written: a prefix `bert.` may
        be there or not, and LayerNorm may have gamma and beta.

    Raises:
        InputError: there are no weights, or a file cannot be read or must not be trusted.
    """
    if os.path.lexists(folder / SAFETENSORS):  # also a link to nowhere, whose reader then says so
        return _named(safetensors_weights(folder / SAFETENSORS))
    if os.path.lexists(folder / f"{SAFETENSORS}.index.json"):
        return _named(_shards(folder / f"{SAFETENSORS}.index.json", safetensors_weights))
    if not from_pt and os.path.lexists(folder / KERAS):
        return _named(keras_weights(folder / KERAS))
    if not from_pt and (indices := sorted(folder.glob("*.ckpt*.index"))):
        return _named(google_weights(indices))
    if os.path.lexists(folder / TORCH):
        return _named(torch_weights(folder / TORCH))
    if os.path.lexists(folder / f"{TORCH}.index.json"):
        return _named(_shards(folder / f"{TORCH}.index.json", torch_weights))
    expected = f"{SAFETENSORS} or {TORCH}" if from_pt else f"{SAFETENSORS}, {KERAS}, *.ckpt.index or {TORCH}"
    raise InputError("checkpoint has no weights", where=folder, expected=expected)


def _named(tensors: dict[str, StoredTensor]) -> dict[str, StoredTensor]:
    """The same tensors. Their names go into messages and logs, and so must be names."""
    for name, tensor in tensors.items():
        if len(name) > LONGEST_NAME or not name.isprintable():
            raise InputError(
                "a tensor has no proper name",
                where=tensor.file,
                expected=f"at most {LONGEST_NAME} printable characters",
                got=ascii(name[:40]),
            )
    return tensors


def _shards(index: Path, read: Callable[[Path], dict[str, StoredTensor]]) -> dict[str, StoredTensor]:
    """The tensors of all shards; each must be where the index says."""
    places = _places(index)
    parts = {file: read(index.with_name(file)) for file in sorted(set(places.values()))}
    held = {file: {tensor.name for tensor in part.values()} for file, part in parts.items()}
    for name, file in places.items():
        if name not in held[file]:
            raise InputError(
                f"the shard lacks tensor {name[:LONGEST_NAME]}",
                where=index.with_name(file),
                expected=f"it there, as {index.name} says",
            )
    return united(parts.values())


def _places(index: Path) -> dict[str, str]:
    """Which shard beside the index has which tensor."""
    shards = json_files.read_object(index).get("weight_map")
    if not isinstance(shards, dict) or not all(isinstance(name, str) for name in shards.values()):
        raise InputError("unreadable shard index", where=index, expected="a weight_map of tensor names to file names")
    for name in sorted(set(shards.values())):
        # An index is a stranger's text: it may name a shard beside it, and nothing else on this machine.
        if name in ("", ".", "..") or set(name) & set("/\\:\0") or len(name) > LONGEST_NAME or not name.isprintable():
            raise InputError(
                "the shard index names no file beside it", where=index, expected="a file name", got=ascii(name[:40])
            )
        if not index.with_name(name).is_file():
            raise InputError("a shard is missing", where=index, expected=name)
    return shards

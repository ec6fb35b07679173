"""The tensors of a checkpoint folder, whichever of the known files it has, under PyTorch's names and not read yet."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tf_finetune.bert.architecture import read_json
from tf_finetune.errors import InputError

SAFETENSORS, TORCH, KERAS = "model.safetensors", "pytorch_model.bin", "tf_model.h5"


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoredTensor:
    """One tensor, where it is stored and how it is read.

    Attributes:
        name: as the file has it, for messages.
        file: that holds it.
        shape: in PyTorch's layout, where a dense kernel is (out, in).
        rows: reads rows start to stop (of the first dimension, in PyTorch's layout), in the stored precision.
    """

    name: str
    file: Path
    shape: tuple[int, ...]
    rows: Callable[[int, int], np.ndarray]

    def read(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Rows of the tensor, all unless told otherwise; float32.

        Raises:
            InputError: the file is damaged, or the values are no weights.
        """
        value = self.rows(start, self.shape[0] if stop is None else stop)
        if value.dtype.kind != "f" and value.dtype.name != "bfloat16":
            raise InputError(
                f"tensor {self.name} holds no weights",
                where=self.file,
                expected="floating-point numbers",
                got=value.dtype.name,
            )
        value = value.astype(np.float32, copy=False)
        if not np.isfinite(value).all():
            raise InputError(
                f"tensor {self.name} is damaged", where=self.file, expected="finite numbers", got="NaN or infinity"
            )
        return value


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
    from tf_finetune.bert import tf_checkpoint
    from tf_finetune.bert.safetensors_weights import safetensors_weights
    from tf_finetune.bert.torch_weights import torch_weights

    if files := _whole_or_shards(folder / SAFETENSORS):
        return _united(safetensors_weights(file) for file in files)
    if not from_pt and (folder / KERAS).is_file():
        return tf_checkpoint.keras_weights(folder / KERAS)
    if not from_pt and (indices := sorted(folder.glob("*.ckpt*.index"))):
        return tf_checkpoint.google_weights(indices)
    if files := _whole_or_shards(folder / TORCH):
        return _united(torch_weights(file) for file in files)
    expected = f"{SAFETENSORS} or {TORCH}" if from_pt else f"{SAFETENSORS}, {KERAS}, *.ckpt.index or {TORCH}"
    raise InputError("checkpoint has no weights", where=folder, expected=expected)


def _whole_or_shards(path: Path) -> list[Path]:
    """The file itself, or else the shards that its index names; empty when there is neither."""
    if path.is_file():
        return [path]
    index = path.with_name(f"{path.name}.index.json")
    if not index.is_file():
        return []
    shards = read_json(index).get("weight_map")
    if not isinstance(shards, dict) or not all(isinstance(name, str) for name in shards.values()):
        raise InputError("unreadable shard index", where=index, expected="a weight_map of tensor names to file names")
    files = []
    for name in sorted(set(shards.values())):
        # An index is a stranger's text: it may name a shard beside it, and nothing else on this machine.
        if name in ("", ".", "..") or set(name) & set("/\\:\0"):
            raise InputError("the shard index names no file beside it", where=index, expected="a file name", got=name)
        if not path.with_name(name).is_file():
            raise InputError("a shard is missing", where=index, expected=name)
        files.append(path.with_name(name))
    return files


def _united(parts) -> dict[str, StoredTensor]:
    united: dict[str, StoredTensor] = {}
    for part in parts:
        for name, tensor in part.items():
            if name in united:
                raise InputError(f"tensor {name} is stored twice", where=united[name].file, got=str(tensor.file))
            united[name] = tensor
    return united

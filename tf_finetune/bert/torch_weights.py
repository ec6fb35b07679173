"""Tensors of a pytorch_model.bin: a pickle, opened by PyTorch's own restricted reader or not at all."""

import functools
import importlib.util
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tf_finetune.bert.stored_weights import StoredTensor
from tf_finetune.errors import InputError

if TYPE_CHECKING:
    import torch

REOPENED_AFTER_BYTES = 64 * 2**20


def torch_weights(path: Path) -> dict[str, StoredTensor]:
    """The tensors of a state dict, read by `torch.load(weights_only=True)`, which runs no code of the file.

    Raises:
        InputError: PyTorch is not installed, the file holds more than tensors, or it cannot be read.
    """
    if importlib.util.find_spec("torch") is None:
        raise InputError(
            "a pickle is only read with PyTorch, which is not installed",
            where=path,
            expected="model.safetensors (where PyTorch is, AutoModelForSequenceClassification.from_pretrained(FOLDER)"
            ".save_pretrained(FOLDER) writes it), or `pip install torch`",
        )
    file = _PickledFile(path)
    return {
        name: StoredTensor(name=name, file=path, shape=tuple(tensor.shape), rows=functools.partial(file.rows, name))
        for name, tensor in file.state.items()
    }


class _PickledFile:
    """A state dict that is opened anew from time to time: pages of a mapped file count as memory while it is open."""

    def __init__(self, path: Path):
        self.path, self.state, self.bytes_read = path, _state_dict(path), 0

    def rows(self, name: str, start: int, stop: int) -> np.ndarray:
        import torch

        if self.bytes_read > REOPENED_AFTER_BYTES:
            self.state, self.bytes_read = None, 0
            self.state = _state_dict(self.path)
        tensor = self.state[name]
        if not tensor.is_floating_point() or tensor.layout != torch.strided or tensor.is_meta:
            got = f"{tensor.dtype}, {tensor.layout}, on {tensor.device}"
            raise InputError(
                f"tensor {name} holds no weights", where=self.path, expected="dense floating-point numbers", got=got
            )
        value = tensor[start:stop].detach().float().numpy()
        self.bytes_read += value.nbytes
        # A copy, because a view would keep the file mapped.
        return value.copy()


def _state_dict(path: Path) -> "dict[str, torch.Tensor]":
    import torch

    zipped = zipfile.is_zipfile(path)
    try:
        if zipped:
            _check_stored(path)
        # Mapped, so that a tensor comes into memory when it is read; the format before 2020 cannot be.
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except InputError:
        raise
    except Exception as error:  # a damaged pickle may raise anything
        raise InputError(
            "unreadable weights",
            where=path,
            expected="a PyTorch state dict with nothing but tensors in it",
            got=f"{type(error).__name__}: {error}".splitlines()[0],
        ) from None
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in state.items()
    ):
        raise InputError("not a state dict", where=path, expected="tensors by name", got=type(state).__name__)
    return state


def _check_stored(path: Path) -> None:
    """PyTorch stores uncompressed; a compressed member could unpack to more than any memory."""
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if member.compress_type != zipfile.ZIP_STORED:
                raise InputError("a compressed checkpoint", where=path, expected="stored members", got=member.filename)

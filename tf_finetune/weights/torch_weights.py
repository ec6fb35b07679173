"""Tensors of a pytorch_model.bin: a pickle, opened by PyTorch's own restricted reader or not at all."""

import contextlib
import functools
import importlib.util
import os
import pickle
import pickletools
import re
import tempfile
import warnings
import weakref
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tf_finetune.errors import InputError
from tf_finetune.weights.stored_tensor import StoredTensor, reason

if TYPE_CHECKING:
    import torch

REOPENED_AFTER_BYTES = 4 * 2**20
# Modules that PyTorch's restricted reader knows and a state dict has no need of.
UNNEEDED = ("builtins", "__builtin__", "_codecs")


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
        self.path, self.mapped, self.bytes_read = path, path, 0
        self.state, zipped = _state_dict(path)
        if not zipped:
            self._write_anew()

    def rows(self, name: str, start: int, stop: int) -> np.ndarray:
        import torch

        if self.bytes_read > REOPENED_AFTER_BYTES:
            self.state, self.bytes_read = None, 0
            self.state, _ = _state_dict(self.mapped)
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

    def _write_anew(self) -> None:
        """The format before 2020 cannot be mapped, and would be in memory twice; what it holds is put in a file
        that can be, in the folder for temporary files. That file goes with this object."""
        import torch

        if sum(tensor.nbytes for tensor in self.state.values()) < REOPENED_AFTER_BYTES:
            return
        descriptor, aside = tempfile.mkstemp(suffix=".bin")
        os.close(descriptor)
        weakref.finalize(self, Path(aside).unlink, missing_ok=True)
        try:
            torch.save(self.state, aside)  # by name: through an open file it would copy each tensor
        except (OSError, RuntimeError) as error:
            raise InputError(
                "no room to read weights of this old format",
                where=tempfile.gettempdir(),
                expected=f"as much as the size of {self.path}",
                got=reason(error),
            ) from None
        self.state, self.mapped = None, Path(aside)
        self.state, _ = _state_dict(self.mapped)


def _state_dict(path: Path) -> "tuple[dict[str, torch.Tensor], bool]":
    """The tensors, and whether the file is mapped: each then comes into memory when it is read."""
    import torch

    try:
        with path.open("rb") as file:
            zipped = file.read(4) == b"PK\3\4"  # what PyTorch itself goes by
        if zipped:
            _check_stored(path)
        _check_calls(path, zipped)
        with warnings.catch_warnings(action="ignore"):  # on pickles that it then refuses
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except InputError:
        raise
    except Exception as error:  # a damaged pickle may raise anything
        expected = "a PyTorch state dict with nothing but tensors in it"
        raise InputError("unreadable weights", where=path, expected=expected, got=_reason(error)) from None
    if not isinstance(state, dict):
        raise InputError("not a state dict", where=path, expected="tensors by name", got=type(state).__name__)
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            got = f"{ascii(name)[:200]}: {type(value).__name__}"
            raise InputError("not a state dict", where=path, expected="tensors by name", got=got)
    return state, zipped


def _reason(error: Exception) -> str:
    """PyTorch's reason without its advice, which is to load the file with `weights_only=False`."""
    if called := re.search(r"GLOBAL ([\w.]+)", str(error)):
        return f"a pickle that calls {called[1][:200]}"
    if isinstance(error, EOFError):
        return "a file that ends too early"
    return "another kind of file" if isinstance(error, pickle.UnpicklingError) else reason(error)


def _check_stored(path: Path) -> None:
    """PyTorch stores uncompressed; a compressed member could unpack to more than any memory."""
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if member.compress_type != zipfile.ZIP_STORED:
                raise InputError("a compressed checkpoint", where=path, expected="stored members", got=member.filename)


def _check_calls(path: Path, zipped: bool) -> None:
    """PyTorch's reader lets a pickle call bytearray, which takes as much memory as it is told to."""
    with contextlib.ExitStack() as stack:
        if zipped:
            archive = stack.enter_context(zipfile.ZipFile(path))
            names = [name for name in archive.namelist() if name.endswith("data.pkl")]
            files = [stack.enter_context(archive.open(name)) for name in names]
        else:
            # The format before 2020: a magic number, a version, the system, the state dict, the storages' keys.
            files = [stack.enter_context(path.open("rb"))] * 5
        with contextlib.suppress(ValueError):  # no pickle: PyTorch says so
            for file in files:
                for code, argument, _ in pickletools.genops(file):
                    if code.name == "GLOBAL" and argument.split()[0] in UNNEEDED:
                        expected = "a PyTorch state dict with nothing but tensors in it"
                        got = f"a pickle that calls {'.'.join(argument.split())}"
                        raise InputError("unreadable weights", where=path, expected=expected, got=got)

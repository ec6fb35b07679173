"""One tensor of a checkpoint: where it is stored, and how it is read."""

import dataclasses
import re
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from tf_finetune.errors import InputError


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
        with np.errstate(over="ignore"):  # what float32 cannot hold is refused below, in words
            value = value.astype(np.float32, copy=False)
        if not np.isfinite(value).all():
            raise InputError(
                f"tensor {self.name} is damaged", where=self.file, expected="finite numbers", got="NaN or infinity"
            )
        return value


def united(parts: Iterable[dict[str, StoredTensor]]) -> dict[str, StoredTensor]:
    """All tensors of the parts.

    Raises:
        InputError: two of them have the same name.
    """
    together: dict[str, StoredTensor] = {}
    for part in parts:
        for name, tensor in part.items():
            if name in together:
                first = together[name]
                got = f"{first.name}, {tensor.name}" if first.file == tensor.file else str(tensor.file)
                raise InputError(f"tensor {name} is stored twice", where=first.file, got=got)
            together[name] = tensor
    return together


def reason(error: Exception) -> str:
    """What a library's error says, short enough to be part of a line: its first sentence."""
    lines = str(error).strip("' \n").splitlines() or [type(error).__name__]
    return re.split(r"\. (?=[A-Z])", lines[0])[0][:200]

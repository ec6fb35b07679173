"""Headers that lie."""

import json
import struct
import time

import pytest

from tf_finetune.errors import InputError
from tf_finetune.weights.safetensors_weights import safetensors_weights


def write(path, header: dict | bytes, data: bytes = b"") -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def tensor(dtype="F32", shape=(2,), end=8) -> dict:
    return {"a": {"dtype": dtype, "shape": shape, "data_offsets": [0, end]}}


@pytest.mark.parametrize(
    "header",
    [
        tensor(end=2**60),
        tensor(shape=(2**60,)),
        tensor(shape=(2**62, 4)),
        tensor(shape=(2**64, 2)),
        tensor(shape=(-2,)),
        tensor(dtype="F99"),
        b"[" * 1_000_000,
        b'{"a":' * 1_000_000,
        b"\xff\xfe",
    ],
)
def test_a_header_that_cannot_be_true_is_refused_at_once(tmp_path, header):
    path = tmp_path / "model.safetensors"
    write(path, header, b"\0" * 8)
    start = time.perf_counter()
    with pytest.raises(
        InputError, match=f"^unreadable weights, in {path}, expected a safetensors file, got ."
    ) as caught:
        safetensors_weights(path)
    assert time.perf_counter() - start < 2
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("length", [2**60, 2**64 - 1, 99_000_000])
def test_a_header_of_an_impossible_length_is_refused(tmp_path, length):
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", length) + b"{}" * 100)
    with pytest.raises(InputError, match="unreadable weights, in .*header"):
        safetensors_weights(path)


@pytest.mark.parametrize("dtype", ["F8_E4M3", "F8_E5M2", "I8", "U8", "BOOL"])
def test_a_precision_that_holds_no_weights_is_named(tmp_path, dtype):
    path = tmp_path / "model.safetensors"
    write(path, tensor(dtype, shape=(8,)), b"\0" * 8)
    with pytest.raises(InputError, match=f"tensor a holds no weights, in {path}, expected .*F32.*, got {dtype}"):
        safetensors_weights(path)["a"].read()


def test_a_number_beyond_float32_is_no_finite_one(tmp_path):
    path = tmp_path / "model.safetensors"
    write(path, tensor("F64", shape=(1,)), struct.pack("<d", 1e300))
    with pytest.raises(InputError, match="tensor a is damaged"):
        safetensors_weights(path)["a"].read()

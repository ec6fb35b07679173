"""Indices with right checksums that would end the process inside TensorFlow."""

import struct

import numpy as np
import pytest

from tf_finetune.errors import InputError
from tf_finetune.weights.tf_checkpoint import google_weights

pytest.importorskip("tensorflow")
BODY = np.arange(4, dtype="float32").tobytes()


def checksum(data: bytes) -> bytes:
    """CRC-32C, masked as LevelDB does."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)


def varint(value: int) -> bytes:
    value &= 2**64 - 1
    groups = []
    while value > 127:
        groups.append(value & 127 | 128)
        value >>= 7
    return bytes([*groups, value])


def block(entries: dict[bytes, bytes], kind: bytes = b"\0") -> bytes:
    parts = (varint(0) + varint(len(key)) + varint(len(value)) + key + value for key, value in entries.items())
    content = b"".join(parts) + struct.pack("<II", 0, 1)
    return content + kind + checksum(content + kind)


def write(folder, shape, *, dtype=1, kind=b"\0", slices=(), endianness=0, more=None) -> list:
    """A checkpoint of one tensor `a` of which the index says this; returns the path of the index in a list."""
    from tensorflow.core.protobuf import tensor_bundle_pb2

    header, entry = tensor_bundle_pb2.BundleHeaderProto(num_shards=1), tensor_bundle_pb2.BundleEntryProto()
    header.version.producer, header.endianness = 1, endianness
    entry.dtype, entry.size = dtype, len(BODY)
    entry.crc32c = struct.unpack("<I", checksum(BODY))[0]
    for size in shape:
        entry.shape.dim.add(size=size)
    for start, length in slices:
        entry.slices.add().extent.add(start=start, length=length)
    entries = {b"": header.SerializeToString(), b"a": entry.SerializeToString()} | (more or {})
    data, meta = block(entries, kind), block({})
    index = block({b"b": varint(0) + varint(len(data) - 5)})
    handles = varint(len(data)) + varint(len(meta) - 5) + varint(len(data + meta)) + varint(len(index) - 5)
    path = folder / "x.ckpt.index"
    path.write_bytes(data + meta + index + handles.ljust(40, b"\0") + struct.pack("<Q", 0xDB4775248B80FB57))
    (folder / "x.ckpt.data-00000-of-00001").write_bytes(BODY)
    return [path]


def test_such_an_index_is_read_where_it_is_right(tmp_path):
    np.testing.assert_array_equal(google_weights(write(tmp_path, [4]))["a"].read(), [0, 1, 2, 3])


@pytest.mark.parametrize("shape", [[-4], [2**60], [2**40, 2**40], [1] * 300])
def test_an_impossible_shape_is_named(tmp_path, shape):
    with pytest.raises(InputError, match=r"tensor a has an impossible shape, in .*x.ckpt.index, got shape \["):
        google_weights(write(tmp_path, shape))


@pytest.mark.parametrize("dtype", [0, 21, 77, 101])
def test_an_impossible_type_is_named(tmp_path, dtype):
    with pytest.raises(InputError, match=f"tensor a has an impossible type, in .*x.ckpt.index, got type {dtype}"):
        google_weights(write(tmp_path, [4], dtype=dtype))


def test_a_compressed_block_is_refused(tmp_path):
    with pytest.raises(InputError, match="unreadable weights, in .*x.ckpt.index, expected the index of a TensorFlow"):
        google_weights(write(tmp_path, [4], kind=b"\1"))


@pytest.mark.parametrize("slices", [[(0, 4), (0, 4)], [(-5, -7)]])
def test_slices_are_refused(tmp_path, slices):
    with pytest.raises(InputError, match="tensor a is stored in slices, in .*x.ckpt.index, expected whole tensors"):
        google_weights(write(tmp_path, [4], slices=slices))


def test_strings_are_not_read(tmp_path):
    tensor = google_weights(write(tmp_path, [4], dtype=7))["a"]
    with pytest.raises(InputError, match="tensor a holds no weights, in .*, got DT_STRING"):
        tensor.read()


def test_big_endian_numbers_are_refused(tmp_path):
    with pytest.raises(InputError, match="unreadable weights, .*, got one of big-endian numbers"):
        google_weights(write(tmp_path, [4], endianness=1))


@pytest.mark.parametrize("more", [{b"A": b""}, {b"b" * 5000: b""}])
def test_names_out_of_order_or_without_end_are_refused(tmp_path, more):
    with pytest.raises(InputError, match="unreadable weights, in .*x.ckpt.index, .*, got a damaged file"):
        google_weights(write(tmp_path, [4], more=more))


def test_a_folder_of_the_checkpoints_name_is_not_followed(tmp_path):
    """TensorFlow would look into it, and from there wherever its `checkpoint` file points."""
    path = write(tmp_path, [4])
    (tmp_path / "x.ckpt").mkdir()
    (tmp_path / "x.ckpt" / "checkpoint").write_text('model_checkpoint_path: "/elsewhere/secret.ckpt"')
    with pytest.raises(InputError, match="unreadable weights, in .*x.ckpt, expected no file or folder of this name"):
        google_weights(path)

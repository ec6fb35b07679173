"""What the index of a TensorFlow checkpoint says, read without TensorFlow's reader.

That one ends the process when a shape is impossible (negative, overflowing, too deep) or a type unknown, so a
stranger's index is looked at here first. The index is a table of LevelDB's: a footer that leads to an index block,
which leads to blocks of sorted keys, https://github.com/google/leveldb/blob/main/doc/table_format.md
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tf_finetune.errors import InputError

if TYPE_CHECKING:
    from tensorflow.core.protobuf import tensor_bundle_pb2

MAGIC = (0xDB4775248B80FB57).to_bytes(8, "little")
FOOTER_BYTES, LARGEST_INDEX_BYTES, LARGEST_SHAPE = 48, 64 * 2**20, 2**40
LONGEST_KEY = 1000


def checked_entries(path: Path) -> dict[str, "tensor_bundle_pb2.BundleEntryProto"]:
    """What the index says of each tensor. Whether its checksums are right is left to TensorFlow.

    Raises:
        InputError: unreadable, or an entry whose shape or type is impossible.
    """
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf import tensor_bundle_pb2

    header, entry = tensor_bundle_pb2.BundleHeaderProto, tensor_bundle_pb2.BundleEntryProto

    expected = "the index of a TensorFlow checkpoint"
    try:
        if path.stat().st_size > LARGEST_INDEX_BYTES:
            raise InputError("unreadable weights", where=path, expected=expected, got="a far larger file")
        named = {}
        for key, value in _entries(path):
            if key:
                named[key.decode(errors="backslashreplace")] = entry.FromString(value)
            elif header.FromString(value).endianness != header.LITTLE:
                raise InputError("unreadable weights", where=path, expected=expected, got="one of big-endian numbers")
    except OSError as error:
        raise InputError("unreadable weights", where=path, expected=expected, got=error.strerror) from None
    except (ValueError, IndexError, DecodeError):
        raise InputError("unreadable weights", where=path, expected=expected, got="a damaged file") from None
    for name, entry in named.items():
        _check_entry(name[:250], entry, path)
    return named


def _check_entry(name: str, entry, path: Path) -> None:
    from tensorflow.core.framework import types_pb2

    shape = [dimension.size for dimension in entry.shape.dim]
    if len(shape) > 8 or min(shape, default=0) < 0 or math.prod(shape) > LARGEST_SHAPE or entry.shape.unknown_rank:
        raise InputError(f"tensor {name} has an impossible shape", where=path, got=f"shape {shape[:8]}")
    if entry.slices:
        raise InputError(f"tensor {name} is stored in slices", where=path, expected="whole tensors")
    known = entry.dtype in types_pb2.DataType.values() and entry.dtype < types_pb2.DT_FLOAT_REF
    if not known or entry.dtype in (types_pb2.DT_INVALID, types_pb2.DT_VARIANT):
        raise InputError(f"tensor {name} has an impossible type", where=path, got=f"type {entry.dtype}")


def _entries(path: Path) -> Iterator[tuple[bytes, bytes]]:
    table = path.read_bytes()
    footer = table[-FOOTER_BYTES:]
    if not footer.endswith(MAGIC):
        raise ValueError("no table")
    _, position = _varint(footer, 0)  # the block of metadata, which TensorFlow leaves empty
    _, position = _varint(footer, position)
    last_key, last_offset = None, -1
    for _, handle in _block(table, footer[position:]):
        offset, _ = _varint(handle, 0)
        if offset <= last_offset:  # the same block over and over would fill any memory
            raise ValueError("blocks out of order")
        last_offset = offset
        for key, value in _block(table, handle):
            if last_key is not None and key <= last_key:
                raise ValueError("keys out of order")
            last_key = key
            yield key, value


def _block(table: bytes, handle: bytes) -> Iterator[tuple[bytes, bytes]]:
    offset, position = _varint(handle, 0)
    size, _ = _varint(handle, position)
    block, kind = table[offset : offset + size], table[offset + size]
    if kind != 0:
        raise ValueError("compressed, which TensorFlow never does")
    end = len(block) - 4 - 4 * int.from_bytes(block[-4:], "little")  # after the entries stand places to start from
    key, position = b"", 0
    while position < end:
        shared, position = _varint(block, position)
        own, position = _varint(block, position)
        length, position = _varint(block, position)
        key = key[:shared] + block[position : position + own]
        if len(key) > LONGEST_KEY:  # keys share their beginning, so that long ones cost nothing to write
            raise ValueError("an endless name")
        position += own + length
        yield key, block[position - length : position]


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """A number in groups of seven bits, lowest first, and the position after it."""
    value = 0
    for shift in range(0, 70, 7):
        byte = data[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
    raise ValueError("a number without end")

"""A file's bytes and text, gzipped or not; what is wrong with it is an InputError that names it."""

import contextlib
import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from tf_finetune.errors import InputError
from tf_finetune.readers.rows import not_utf8, utf16

GZIP = ".gz"


@contextlib.contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """The file's bytes, unpacked; what goes wrong while they are read is an InputError."""
    try:
        with gzip.open(path) if path.suffix.lower() == GZIP else path.open("rb") as file:
            yield file
    except (OSError, EOFError, zlib.error) as error:
        raise InputError("unreadable file", where=path, got=str(error)) from None


@contextlib.contextmanager
def opened_text(path: Path) -> Iterator[BinaryIO]:
    """The bytes of a file that should be UTF-8.

    Raises:
        InputError: it cannot be read, or is UTF-16: a mark says so, or every second byte is 0.
    """
    with opened(path) as file:
        first = file.peek(4)[:4]
        if first.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0\0" in (first[::2], first[1::2]) and any(first):
            raise utf16(path)
        yield file


def read_text(path: Path) -> str:
    """A file's text with its line ends as they are, without a byte order mark.

    Raises:
        InputError: it cannot be read, or is not UTF-8.
    """
    with opened_text(path) as file:
        content = file.read()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = len((error.object[: error.start] + b".").splitlines())
        raise not_utf8(error, f"{path} line {line}") from None

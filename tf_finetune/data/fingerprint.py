"""What the rows of a source depend on, as a key: its content, how it is read, and by which code."""

import dataclasses
import functools
import hashlib
import platform
from importlib import metadata
from pathlib import Path

from tf_finetune.data import cache
from tf_finetune.errors import InputError
from tf_finetune.packages import KNOWN_SHA256
from tf_finetune.readers import files, hub_datasets, reviews, tables, tfds_datasets
from tf_finetune.readers.rows import SPLIT_NAMES, Columns

PACKAGE = Path(__file__).parents[1]
LIBRARIES = ("datasets", "pyarrow", "tensorflow-datasets")


def of_source(place: str, columns: Columns, *, whole_file: bool) -> str:
    """The key of a source's rows.

    Files go by their path and the sha256 of their bytes, whatever their dates say. The path is part of it because
    every row knows its place: a copy elsewhere is read anew. A dataset of the hub goes by its commit, one of tfds
    by its version, the reviews by the sha256 of their package.

    Args:
        place: the source as `sources.pinned` names it.
        columns: which are read.
        whole_file: as for `sources.load`.

    Raises:
        InputError: nothing there, or a file cannot be read.
    """
    return cache.key_of(
        kind="rows",
        place=place,
        content=_content(place),
        columns=dataclasses.astuple(columns),
        whole_file=whole_file,
        code=code(),
        versions={name: metadata.version(name) for name in LIBRARIES},
        python=platform.python_version(),
    )


@functools.cache
def code() -> str:
    """The sha256 of our own files, in the place of a version that somebody would have to remember to raise."""
    digest = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        digest.update(str(path.relative_to(PACKAGE)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _content(place: str) -> object:
    if place in reviews.FILES:
        return KNOWN_SHA256[reviews.PACKAGE]
    if place.startswith((hub_datasets.PREFIX, tfds_datasets.PREFIX)):
        return "named by the place"
    return [(str(path), _sha256(path)) for path in _paths(place)]


def _paths(place: str) -> list[Path]:
    """All files that may be read for files, a list, a glob or a folder; for a folder some more than are."""
    folder = Path(place)
    if not folder.is_dir():
        return files.matching(place)
    found = list(folder.iterdir())
    for name in SPLIT_NAMES:
        found += [*(folder / name).glob("*"), *(folder / name).glob("*/*.txt")]
    return sorted(p for p in found if (tables.is_table(p) or p.suffix == ".txt") and p.is_file())


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError("unreadable file", where=path, got=str(error)) from None

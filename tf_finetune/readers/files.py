"""Which files a source names and which split each is: a file, a list, a glob, a folder of tables or of classes."""

import functools
import glob
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from tf_finetune.errors import InputError
from tf_finetune.readers import tables
from tf_finetune.readers.opening import read_text
from tf_finetune.readers.rows import SPLIT_NAMES, WHOLE, Columns, Found, OnFault, Reader, Row, joined, refuse_columns

# train, train-00000-of-00004, train_1
SPLIT_STEM = re.compile(rf"({'|'.join(SPLIT_NAMES)})([-_.]\d+([-_]of[-_]\d+)?)?")
# Where aclImdb keeps texts without labels.
UNLABELLED = "unsup"
PLACES = (
    "reviews, product_reviews, imdb, hub:OWNER/NAME, tfds:NAME, a file, files with commas between, a glob, or a folder"
)


def read(source: str, columns: Columns, *, whole_file: bool) -> Found:
    """The rows of files, by split where their names say it.

    Args:
        source: a file, files with commas between, a glob, or a folder.
        columns: of tables; opened, like the tables, when their rows are read.
        whole_file: take a single file, or several without split names, as the test split.

    Raises:
        InputError: nothing there, of no known kind or with a fault; or only some of several files name a split.
    """
    folder = Path(source).expanduser()
    if source and folder.is_dir():
        return _folder(folder, columns)
    paths = matching(source)
    named = {path: _split_of(path) for path in paths}
    if whole_file and (len(paths) == 1 or not any(named.values())):
        named = dict.fromkeys(paths, "test")
    odd = [path for path, split in named.items() if split is None]
    if odd and len(odd) < len(paths):
        expected = "all files named by split (train, validation, test), or none"
        raise InputError(
            "a file without a split's name among files with one", where=source, expected=expected, got=odd[0]
        )
    return Found(_readers(((split or WHOLE, path) for path, split in named.items()), columns))


def absolute(source: str) -> str:
    """The same files from any working directory.

    Raises:
        InputError: nothing there.
    """
    if source and Path(source).expanduser().exists():
        return str(Path(source).expanduser().absolute())
    matching(source)
    parts = [Path(part.strip()).expanduser() for part in source.split(",") if part.strip()]
    here = Path.cwd()
    anchor = Path(glob.escape(str(here)))
    return ",".join(str((here if part.is_file() else anchor) / part) for part in parts)


def _check_name(path: Path) -> None:
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError:
        raise InputError("a file's name is not UTF-8", where=path.parent, got=ascii(path.name)) from None


def matching(source: str) -> list[Path]:
    """The files of a name, a list or a glob, each once."""
    if Path(source).expanduser().is_file():
        return [Path(source).expanduser()]
    paths: list[Path] = []
    for part in (part.strip() for part in source.split(",") if part.strip()):
        path = Path(part).expanduser()
        if path.is_file():
            paths.append(path)
            continue
        matches = glob.glob(str(path), recursive=True) if glob.has_magic(part) else []
        found = sorted(Path(match) for match in matches if Path(match).is_file())
        if not found:
            raise InputError("no such data", where="data.source", expected=PLACES, got=part)
        paths.extend(found)
    if not paths:
        raise InputError("no such data", where="data.source", expected=PLACES, got=repr(source))
    for path in paths:
        _check_name(path)
    return list(dict.fromkeys(paths))


def _split_of(path: Path) -> str | None:
    match = SPLIT_STEM.fullmatch(tables.table_stem(path))
    return SPLIT_NAMES[match[1]] if match else None


def _readers(files: Iterable[tuple[str, Path]], columns: Columns) -> dict[str, Reader]:
    splits: dict[str, list[Reader]] = {}
    for split, path in files:
        splits.setdefault(split, []).append(functools.partial(tables.rows, path, columns))
    return {split: joined(readers) for split, readers in splits.items()}


def _folder(folder: Path, columns: Columns) -> Found:
    top = _tables(folder)
    files = [(_split_of(path), path) for path in top if _split_of(path)]
    files += [(split, path) for name, split in SPLIT_NAMES.items() for path in _tables(folder / name)]
    if files:
        strays = [path.name for path in top if not _split_of(path)]
        notes = [f"left out: {', '.join(strays[:5])} (no split's name)"] if strays else []
        return Found(_readers(files, columns), notes)
    found = _classes(folder)
    if not found.splits:
        examples = f"train.csv, train/*.parquet, train/CLASS/*.txt or the like, or a glob such as '{folder}/*.csv'"
        raise InputError("no splits in the data folder", where=folder, expected=examples)
    refuse_columns("a folder of classes", columns)
    return found


def _tables(folder: Path) -> list[Path]:
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    return [path for path in files if tables.is_table(path) and path.is_file()]


def _classes(folder: Path) -> Found:
    """Texts as files, a folder a class in a folder a split."""
    splits: dict[str, list[Reader]] = {}
    notes = []
    for name, split in SPLIT_NAMES.items():
        for label in sorted((folder / name).glob("*/")):
            if label.name == UNLABELLED:
                notes.append(f"left out: {name}/{label.name} ({len(_texts(label))} texts without labels)")
            else:
                splits.setdefault(split, []).append(functools.partial(_class, label))
    return Found({split: joined(readers) for split, readers in splits.items()}, notes)


def _class(folder: Path, on_fault: OnFault) -> Iterator[Row]:
    """The texts of one class."""
    for path in _texts(folder):
        try:
            text = read_text(path)
        except InputError as error:
            on_fault(error)
            continue
        yield Row(text, folder.name, where=str(path))


def _texts(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.glob("*.txt")) if path.is_file()]

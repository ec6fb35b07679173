"""Where labelled text comes from: the packaged reviews, a csv or tsv, a folder of splits or of classes."""

import csv
import dataclasses
import hashlib
import io
import random
import re
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from tf_finetune import packages
from tf_finetune.errors import InputError

REVIEWS_ARCHIVE = "hutto_ICWSM_2014.tar.gz"
REVIEWS_FILE = "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"
SPLIT_NAMES = {"train": "train", "validation": "validation", "valid": "validation", "dev": "validation", "test": "test"}
TABLE_SUFFIXES = (".csv", ".tsv")

# A text and the name of its label.
Row = tuple[str, str]


@dataclasses.dataclass(frozen=True)
class Examples:
    """Texts and the index of each one's label."""

    texts: list[str]
    labels: list[int]

    def __len__(self) -> int:
        return len(self.texts)


@dataclasses.dataclass(frozen=True)
class Splits:
    """The splits a source has ("train", "validation", "test", each only if there), and the names of the labels."""

    examples: dict[str, Examples]
    label_names: tuple[str, ...]


def load(
    source: str,
    *,
    text_column: str = "text",
    label_column: str = "label",
    max_examples: int = 0,
    seed: int = 0,
    label_names: tuple[str, ...] | None = None,
    whole_file: bool = False,
) -> Splits:
    """Reads labelled text.

    A single file whose name is no split's is split 80/10/10 by a hash of each text, so the same text
    always lands in the same split. Splits that come named are taken as they are; where there is a
    train split and no validation split, a tenth of train (by the same hash) becomes it.

    Args:
        source: "reviews", a csv or tsv file, a folder of `train.csv`, `test.csv` ... (or .tsv), or a
            folder of `train/CLASS/*.txt`, `test/CLASS/*.txt` as aclImdb has them (its `unsup` is left out).
        text_column: of a csv or tsv.
        label_column: of a csv or tsv; every distinct value is a class.
        max_examples: at most so many of each split, drawn by seed; 0 means all.
        seed: for max_examples.
        label_names: the classes in order, where a trained model has fixed them already.
        whole_file: take a single file as the test split, instead of splitting it.

    Raises:
        InputError: nothing there, a column or a label missing, a label only outside train, one class only.
    """
    rows = _rows_of_splits(source, text_column, label_column, whole_file=whole_file)
    if label_names is None:
        label_names = _label_names(rows, source)
    index = {name: position for position, name in enumerate(label_names)}
    examples = {}
    for split, pairs in rows.items():
        unknown = sorted({label for _, label in pairs} - set(index))
        if unknown:
            raise InputError(
                f"a label of the {split} split is unknown",
                where=source,
                expected=" or ".join(label_names[:20]),
                got=repr(unknown[0]),
            )
        if max_examples and len(pairs) > max_examples:
            pairs = random.Random(seed).sample(pairs, max_examples)
        examples[split] = Examples([text for text, _ in pairs], [index[label] for _, label in pairs])
    return Splits(examples=examples, label_names=label_names)


def _rows_of_splits(source: str, text_column: str, label_column: str, *, whole_file: bool) -> dict[str, list[Row]]:
    if source == "reviews":
        return _split_by_hash(_packaged_reviews())
    path = Path(source).expanduser()
    if path.is_dir():
        splits = _folder_of_files(path, text_column, label_column) or _folder_of_classes(path)
        if not splits:
            raise InputError(
                "no splits in the data folder",
                where=path,
                expected="train.csv, test.csv (or .tsv), or train/CLASS/*.txt",
            )
    elif path.is_file():
        rows = list(_table(path, text_column, label_column))
        split = "test" if whole_file else SPLIT_NAMES.get(path.stem)
        splits = {split: rows} if split else _split_by_hash(rows)
    else:
        raise InputError(
            "no such data", where="data.source", expected="reviews, a csv or tsv file, or a folder", got=source
        )
    if "train" in splits and "validation" not in splits:
        parts = _split_by_hash(splits["train"])
        splits["validation"] = parts["validation"]
        splits["train"] = [row for row in splits["train"] if _tenth(row[0]) != 1]
    for split, rows in splits.items():
        if not rows:
            expected = "at least one example a split; a file of few rows cannot be split 80/10/10"
            raise InputError(f"the {split} split is empty", where=source, expected=expected)
    return {split: splits[split] for split in ("train", "validation", "test") if split in splits}


def _label_names(rows: dict[str, list[Row]], source: str) -> tuple[str, ...]:
    """The classes of train (of all splits where there is no train), numbers in numeric order."""
    names = {label for _, label in rows.get("train") or [row for split in rows.values() for row in split]}
    if len(names) < 2:
        raise InputError(
            "only one class in the training data", where=source, expected="two or more labels", got=", ".join(names)
        )
    numeric = all(re.fullmatch(r"-?\d+", name) for name in names)
    return tuple(sorted(sorted(names), key=int if numeric else str))  # sorted twice: 1 and 01 tie


def _split_by_hash(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """80/10/10 by the text alone."""
    splits: dict[str, list[Row]] = {"train": [], "validation": [], "test": []}
    for text, label in rows:
        splits[{0: "test", 1: "validation"}.get(_tenth(text), "train")].append((text, label))
    return splits


def _tenth(text: str) -> int:
    return int(hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest(), 16) % 10


def _packaged_reviews() -> Iterator[Row]:
    """Sentences of movie reviews rated by people (Hutto and Gilbert 2014); the sign of the mean rating is the label."""
    path = packages.fetch("vaderSentiment==2.5", source_archive=True)
    with tarfile.open(path) as outer:
        inner = outer.extractfile(f"vaderSentiment-2.5/additional_resources/{REVIEWS_ARCHIVE}")
        with tarfile.open(fileobj=inner) as archive:
            content = archive.extractfile(REVIEWS_FILE).read().decode("utf-8")
    seen = set()
    for line in content.strip().split("\r\n"):  # not splitlines(), which also splits at rarer separators
        _, rating, text = line.split("\t")
        if float(rating) != 0 and text not in seen:
            seen.add(text)
            yield text, "positive" if float(rating) > 0 else "negative"


def _folder_of_files(folder: Path, text_column: str, label_column: str) -> dict[str, list[Row]]:
    splits: dict[str, list[Row]] = {}
    for path in sorted(folder.iterdir()):
        split = SPLIT_NAMES.get(path.stem)
        if path.suffix in TABLE_SUFFIXES and split:
            splits.setdefault(split, []).extend(_table(path, text_column, label_column))
    return splits


def _folder_of_classes(folder: Path) -> dict[str, list[Row]]:
    splits: dict[str, list[Row]] = {}
    for name, split in SPLIT_NAMES.items():
        classes = [path for path in sorted((folder / name).glob("*")) if path.is_dir() and path.name != "unsup"]
        if classes:
            files = ((path, label.name) for label in classes for path in sorted(label.glob("*.txt")) if path.is_file())
            splits.setdefault(split, []).extend((_read_text(path), label) for path, label in files)
    return splits


def _read_text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")  # bytes: line ends inside a text stay as they are
    except UnicodeDecodeError as error:
        raise InputError("text is not UTF-8", where=path, got=f"byte {error.object[error.start]:#04x}") from None


def _table(path: Path, text_column: str, label_column: str) -> Iterator[Row]:
    """The texts and labels of a csv or tsv."""
    for line, (text, label) in _cells(path, (text_column, label_column)):
        if not label.strip():
            raise InputError("a label is missing", where=f"{path} line {line}")
        yield text, label.strip()


def texts(path: Path, text_column: str) -> Iterator[str]:
    """Texts without labels: a column of a csv or tsv, or the lines of any other file.

    Raises:
        InputError: a table has no such column, or a fault.
    """
    if path.suffix in TABLE_SUFFIXES:
        yield from (text for _, (text,) in _cells(path, (text_column,)))
    else:
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            yield from (line.rstrip("\n") for line in file)


def _cells(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[int, list[str]]]:
    """Line number and chosen cells of each row under a header line, read strictly: a fault names its line."""
    if path.suffix not in TABLE_SUFFIXES:
        raise InputError("unknown kind of data file", where=path, expected="one of .csv, .tsv")
    csv.field_size_limit(2**31 - 1)  # a text may be longer than the module's 128 KiB
    lines = io.StringIO(_read_text(path), newline="")
    if path.suffix == ".tsv":  # has no quoting (IANA text/tab-separated-values): a review may begin with a quote
        reader = csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
    else:
        reader = csv.reader(lines, strict=True)
    try:
        header = next(reader, [])
        for column in columns:
            if column not in header:
                got = ", ".join(header) or "an empty file"
                raise InputError("no such column", where=path, expected=f"a column {column!r}", got=got)
        for row in filter(None, reader):
            if len(row) != len(header):
                where = f"{path} line {reader.line_num}"
                raise InputError("wrong number of columns", where=where, expected=len(header), got=len(row))
            yield reader.line_num, [row[header.index(column)] for column in columns]
    except csv.Error as error:
        raise InputError("malformed table", where=f"{path} line {reader.line_num}", got=str(error)) from None

"""Where labelled text comes from: the packaged reviews, IMDB, the hub, TensorFlow Datasets, files."""

import dataclasses
from collections.abc import Callable
from typing import TypeVar

from tf_finetune.data import files, hub_datasets, splitting, tables, tfds_datasets
from tf_finetune.data.reviews import packaged_reviews
from tf_finetune.data.rows import WHOLE, Columns, Found, Reader, refuse, refuse_columns
from tf_finetune.errors import InputError

# The same 50,000 reviews, and 50,000 without labels, under the first name of either catalog.
IMDB_ON_HUB, IMDB_IN_TFDS = "stanfordnlp/imdb", "imdb_reviews/plain_text"

T = TypeVar("T")

is_table = tables.is_table
texts = tables.texts


@dataclasses.dataclass(frozen=True)
class Examples:
    """Texts and the index of each one's label."""

    texts: list[str]
    labels: list[int]

    def __len__(self) -> int:
        return len(self.texts)


@dataclasses.dataclass(frozen=True)
class Splits:
    """What was read.

    Attributes:
        examples: by "train", "validation" and "test", each only if there.
        label_names: the classes; an example's label is an index into them.
        notes: sentences about what was left out or chosen, for the user.
        source: the source as `pinned` names it.
    """

    examples: dict[str, Examples]
    label_names: tuple[str, ...]
    notes: tuple[str, ...] = ()
    source: str = ""


def load(
    source: str,
    *,
    text_column: str = "text",
    label_column: str = "label",
    max_examples: int = 0,
    validation_examples: int = 0,
    seed: int = 0,
    label_names: tuple[str, ...] | None = None,
    whole_file: bool = False,
) -> Splits:
    """Reads labelled text.

    Splits that come named are taken as they are. Where there is a train split and no validation split, the
    latter is taken out of train, after `max_examples` were drawn. A source without named splits is split
    80/10/10 by a hash of each text, so the same text always lands in the same split.

    Args:
        source: "reviews"; "imdb"; "hub:OWNER/NAME[:CONFIG][@REVISION]"; "tfds:NAME[/CONFIG][:VERSION]"; a csv,
            tsv, jsonl or parquet file, gzipped or not; several with commas between, or a glob; a folder of
            files named by split, of split folders with such files, or of `train/CLASS/*.txt` as aclImdb has them.
        text_column: of a table or dataset.
        label_column: of a table or dataset; every distinct value is a class.
        max_examples: at most so many of each split, drawn by seed; 0 means all.
        validation_examples: taken out of train, by the lowest hashes of the texts; 0 means a tenth.
        seed: for max_examples.
        label_names: the classes in order, where a trained model has fixed them already.
        whole_file: take a single file, or several without split names, as the test split.

    Raises:
        HubUnreachable: a dataset of the hub is neither within reach nor in the cache.
        InputError: nothing there, a column or a label missing, a label only outside train, one class only.
    """
    place, found = _read(source, Columns(text_column, label_column), whole_file=whole_file)
    found = dataclasses.replace(found, splits={split: _pairs(reader) for split, reader in found.splits.items()})
    splits = splitting.named_splits(found, source)
    label_names = label_names or splitting.label_names(splits, source)
    index = {name: position for position, name in enumerate(label_names)}
    for split, rows in splits.items():
        if unknown := sorted({label for _, label in rows} - set(index)):
            what, expected = f"a label of the {split} split is unknown", " or ".join(label_names[:20])
            raise InputError(what, where=source, expected=expected, got=repr(unknown[0]))
    splits = splitting.with_validation(
        splits, source, validation_examples=validation_examples, max_examples=max_examples, seed=seed
    )
    examples = {
        split: Examples([text for text, _ in rows], [index[label] for _, label in rows])
        for split, rows in splits.items()
    }
    return Splits(examples, label_names, tuple(found.notes), place)


def pinned(source: str) -> str:
    """The same source under a name that stays the same: absolute paths, a commit of the hub, a version of tfds.

    Nothing is downloaded but what tells the commit. `load` takes every name this returns.

    Raises:
        HubUnreachable: the commit is neither to be had nor in the cache.
        InputError: nothing there.
    """
    if source == "reviews":
        return source
    if source == "imdb":
        return _imdb(hub_datasets.pinned, tfds_datasets.pinned)[0]
    if source.startswith(hub_datasets.PREFIX):
        return hub_datasets.pinned(source.removeprefix(hub_datasets.PREFIX))
    if source.startswith(tfds_datasets.PREFIX):
        return tfds_datasets.pinned(source.removeprefix(tfds_datasets.PREFIX))
    return files.absolute(source)


def _pairs(reader: Reader) -> list[tuple[str, str]]:
    """Texts and labels: what splitting takes, until it takes rows."""
    pairs = []
    for row in reader(refuse):
        if not isinstance(row.label, str):
            raise InputError("a label is a list", where=row.where, expected="one class a text", got=list(row.label))
        pairs.append((row.text, row.label))
    return pairs


def find(source: str, columns: Columns) -> Found:
    """What a source holds, unsplit and undrawn: readers of its rows.

    Raises:
        HubUnreachable, InputError: as `load` does, of what shows before the rows are read.
    """
    return _read(source, columns, whole_file=False)[1]


def _read(source: str, columns: Columns, *, whole_file: bool) -> tuple[str, Found]:
    """The source as `pinned` names it, and what it holds."""
    if source == "reviews":
        refuse_columns("reviews", columns)
        return source, Found({WHOLE: packaged_reviews})
    if source == "imdb":
        refuse_columns("imdb", columns)
        (place, found), note = _imdb(_read_from_hub, _read_from_tfds)
        found.notes.insert(0, note)
        return place, found
    place = pinned(source)
    if place.startswith(hub_datasets.PREFIX):
        return _read_from_hub(place.removeprefix(hub_datasets.PREFIX), columns)
    if place.startswith(tfds_datasets.PREFIX):
        return _read_from_tfds(place.removeprefix(tfds_datasets.PREFIX), columns)
    return place, files.read(source, columns, whole_file=whole_file)


def _read_from_hub(name: str, columns: Columns | None = None) -> tuple[str, Found]:
    place = hub_datasets.pinned(name)
    return place, hub_datasets.read(place.removeprefix(hub_datasets.PREFIX), columns or Columns())


def _read_from_tfds(name: str, columns: Columns | None = None) -> tuple[str, Found]:
    place = tfds_datasets.pinned(name)
    return place, tfds_datasets.read(place.removeprefix(tfds_datasets.PREFIX), columns or Columns())


def _imdb(from_hub: Callable[[str], T], from_tfds: Callable[[str], T]) -> tuple[T, str]:
    """What the first of the two gives that can be had, and a note on which it was."""
    try:
        return from_hub(IMDB_ON_HUB), f"imdb: read from {hub_datasets.PREFIX}{IMDB_ON_HUB}"
    except InputError as error:
        hub_error = error
    try:
        return from_tfds(IMDB_IN_TFDS), f"imdb: read from {tfds_datasets.PREFIX}{IMDB_IN_TFDS}, because {hub_error}"
    except InputError as tfds_error:
        what = "imdb is to be had neither from the hub nor from tfds"
        raise InputError(what, where="data.source", got=f"hub: {hub_error}; tfds: {tfds_error}") from None

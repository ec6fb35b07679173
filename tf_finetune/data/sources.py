"""Where labelled text comes from: the packaged reviews, IMDB, the hub, TensorFlow Datasets, files."""

import dataclasses
from collections.abc import Callable
from typing import TypeVar

import numpy as np

from tf_finetune.config import ProblemType
from tf_finetune.data import fingerprint, labels, splitting, store
from tf_finetune.data.examples import Examples
from tf_finetune.data.store import Rows
from tf_finetune.errors import InputError
from tf_finetune.readers import files, hub_datasets, reviews, tables, tfds_datasets
from tf_finetune.readers.rows import TEXT_AND_LABEL, WHOLE, Columns, Found, refuse_columns

# The same 50,000 reviews, and 50,000 without labels, under the first name of either catalog.
IMDB_ON_HUB, IMDB_IN_TFDS = "stanfordnlp/imdb", "imdb_reviews/plain_text"

T = TypeVar("T")

is_table = tables.is_table
texts, pairs, pair_of = tables.texts, tables.pairs, tables.pair_of


@dataclasses.dataclass(frozen=True)
class Splits:
    """What was read.

    Attributes:
        examples: by "train", "validation" and "test", each only if there.
        label_names: the classes, into which a label is an index; of a regression the name of its number.
        notes: sentences about what was left out or chosen, for the user.
        source: the source as `pinned` names it.
        problem_type: what a label is; never AUTO.
    """

    examples: dict[str, Examples]
    label_names: tuple[str, ...]
    notes: tuple[str, ...] = ()
    source: str = ""
    problem_type: ProblemType = ProblemType.SINGLE_LABEL_CLASSIFICATION


def load(
    source: str,
    *,
    columns: Columns = TEXT_AND_LABEL,
    problem_type: ProblemType = ProblemType.AUTO,
    max_examples: int = 0,
    validation_examples: int = 0,
    folds: int = 0,
    fold: int = 0,
    seed: int = 0,
    label_names: tuple[str, ...] | None = None,
    whole_file: bool = False,
) -> Splits:
    """Reads labelled text. Its rows are kept on disk (`data.store`), so that reading them again takes no time.

    Splits that come named are taken as they are. Where there is a train split and no validation split, the
    latter is taken out of train, after `max_examples` were drawn. A source without named splits is split
    80/10/10 by a hash of each text, so the same text always lands in the same split.

    Args:
        source: "reviews"; "product_reviews"; "imdb"; "hub:OWNER/NAME[:CONFIG][@REVISION]";
            "tfds:NAME[/CONFIG][:VERSION]"; a csv, tsv, jsonl or parquet file, gzipped or not; several with commas
            between, or a glob; a folder of files named by split, of split folders with such files, or of
            `train/CLASS/*.txt` as aclImdb has them.
        columns: of a table or dataset.
        problem_type: what a label is: every distinct value a class, a list of classes, or a number.
        max_examples: at most so many of each split, drawn by seed; 0 means all.
        validation_examples: taken out of train, by the lowest hashes of the texts; 0 means a tenth.
        folds: how many train is shared out among, once a validation split is out of it; 0 means none.
        fold: the one that is the test split, and no longer in train.
        seed: for max_examples and folds.
        label_names: the classes in order, where a trained model has fixed them already.
        whole_file: take a single file, or several without split names, as the test split.

    Raises:
        HubUnreachable: a dataset of the hub is neither within reach nor in the cache.
        InputError: nothing there, a column or a label missing, a label only outside train, one class only.
    """
    place, stored, notes = _stored(source, columns, whole_file=whole_file)
    parts = splitting.named_splits(stored, source)
    known = labels.of_splits(parts, problem_type, label_names=label_names, source=source)
    parts = splitting.with_validation(
        parts, source, validation_examples=validation_examples, max_examples=max_examples, seed=seed
    )
    if folds:
        parts = splitting.with_fold(parts, known.values, source, folds=folds, fold=fold, seed=seed)
    examples = {split: _examples(part, known.values(part), columns) for split, part in parts.items()}
    return Splits(examples, known.names, notes, place, known.problem_type)


def pinned(source: str) -> str:
    """The same source under a name that stays the same: absolute paths, a commit of the hub, a version of tfds.

    Nothing is downloaded but what tells the commit. `load` takes every name this returns.

    Raises:
        HubUnreachable: the commit is neither to be had nor in the cache.
        InputError: nothing there.
    """
    if source in reviews.FILES:
        return source
    if source == "imdb":
        return _imdb(hub_datasets.pinned, tfds_datasets.pinned)[0]
    if source.startswith(hub_datasets.PREFIX):
        return hub_datasets.pinned(source.removeprefix(hub_datasets.PREFIX))
    if source.startswith(tfds_datasets.PREFIX):
        return tfds_datasets.pinned(source.removeprefix(tfds_datasets.PREFIX))
    return files.absolute(source)


def names_of(source: str) -> tuple[str, ...]:
    """The names under which a source may be read: imdb has two."""
    if source != "imdb":
        return (source,)
    return f"{hub_datasets.PREFIX}{IMDB_ON_HUB}", f"{tfds_datasets.PREFIX}{IMDB_IN_TFDS}"


def _examples(part: splitting.Part, values: np.ndarray, columns: Columns) -> Examples:
    rows, indices = part.rows, part.indices
    return Examples(
        texts=rows.strings("text", indices),
        labels=values,
        text_pairs=rows.strings("text_pair", indices) if columns.text_pair else None,
        weights=rows.numbers("weight", np.float32)[indices] if columns.weight else None,
        places=rows.strings("where", indices),
        slices=rows.strings("slices", indices) if columns.slices else None,
        rows_key=rows.key,
    )


def _stored(source: str, columns: Columns, *, whole_file: bool) -> tuple[str, dict[str, Rows], tuple[str, ...]]:
    """The source as `pinned` names it, its rows on disk, and its notes."""
    if source != "imdb":
        return _kept(pinned(source), columns, whole_file=whole_file)
    refuse_columns("imdb", columns)
    (place, stored, notes), note = _imdb(
        lambda name: _kept(hub_datasets.pinned(name), columns, whole_file=whole_file),
        lambda name: _kept(tfds_datasets.pinned(name), columns, whole_file=whole_file),
    )
    return place, stored, (note, *notes)


def _kept(place: str, columns: Columns, *, whole_file: bool) -> tuple[str, dict[str, Rows], tuple[str, ...]]:
    """A source as `pinned` names it, its rows on disk, and its notes."""
    rows, notes = store.stored(
        lambda: fingerprint.of_source(place, columns, whole_file=whole_file),
        lambda: _read(place, columns, whole_file=whole_file),
        place=place,
    )
    return place, rows, notes


def find(source: str, columns: Columns) -> Found:
    """What a source holds, unsplit and undrawn: readers of its rows.

    Raises:
        HubUnreachable, InputError: as `load` does, of what shows before the rows are read.
    """
    if source.startswith((hub_datasets.PREFIX, tfds_datasets.PREFIX)):
        source = pinned(source)  # the rows' places name the commit or version; those of files stay as they were typed
    if source != "imdb":
        return _read(source, columns, whole_file=False)
    refuse_columns("imdb", columns)
    found, note = _imdb(
        lambda name: _read(hub_datasets.pinned(name), columns, whole_file=False),
        lambda name: _read(tfds_datasets.pinned(name), columns, whole_file=False),
    )
    found.notes.insert(0, note)
    return found


def _read(source: str, columns: Columns, *, whole_file: bool) -> Found:
    """What a source other than imdb holds."""
    if source in reviews.FILES:
        return Found({WHOLE: reviews.packaged_reviews(source, columns)})
    if source.startswith(hub_datasets.PREFIX):
        return hub_datasets.read(source.removeprefix(hub_datasets.PREFIX), columns)
    if source.startswith(tfds_datasets.PREFIX):
        return tfds_datasets.read(source.removeprefix(tfds_datasets.PREFIX), columns)
    return files.read(source, columns, whole_file=whole_file)


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

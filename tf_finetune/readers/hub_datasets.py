"""Datasets of the Hugging Face hub, read by `datasets`: `hub:OWNER/NAME[:CONFIG][@REVISION]`."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tf_finetune import hub
from tf_finetune.errors import InputError
from tf_finetune.readers import catalogs
from tf_finetune.readers.rows import Columns, Found, check_columns

if TYPE_CHECKING:
    import datasets

PREFIX = "hub:"
NAME = re.compile(r"[\w.-]+/[\w.-]+(:[^:@]+)?(@[^@]+)?")
CONFIGS = re.compile(r"(?:available configs|Available): \[(.*?)\]")


def read(name: str, columns: Columns) -> Found:
    """The rows of a dataset at one commit, fetched into the cache of `datasets` unless they are there.

    Args:
        name: `OWNER/NAME[:CONFIG][@REVISION]`.
        columns: a label may be a class, a list of classes, a name or a number.

    Raises:
        HubUnreachable: the hub cannot be reached and the cache has no copy.
        InputError: no such dataset, config, revision or column, or `datasets` cannot read it.
    """
    import datasets

    place = PREFIX + name
    repo_id, config, commit = _parts(pinned(name).removeprefix(PREFIX))
    try:
        with hub.named_faults(repo_id, "dataset"):
            builder = _builder(repo_id, config, commit)
            builder.download_and_prepare()
            splits = builder.as_dataset()
    except InputError:
        raise
    except Exception as error:  # files of anybody's: whatever they make `datasets` raise is for the user to see
        raise _in_our_words(error, place, config) from error
    features = builder.info.features
    check_columns(columns.names, list(features), place)
    label = features[columns.label]
    label = getattr(label, "feature", label)  # of a list
    class_names = label.names if isinstance(label, datasets.ClassLabel) else None
    sizes = {split: len(rows) for split, rows in splits.items()}
    found = catalogs.found(place, sizes, lambda split: _values(splits[split], columns.names), columns, class_names)
    if not config and len(builder.builder_configs) > 1:
        found.notes.insert(0, f"config {builder.config.name} of {repo_id}")
    return found


def pinned(name: str) -> str:
    """`hub:OWNER/NAME[:CONFIG]@COMMIT`, the commit that a name stands for now.

    Raises:
        HubUnreachable: the hub cannot be reached and the cache does not know the revision.
        InputError: no such dataset or revision.
    """
    repo_id, config, revision = _parts(name)
    if not hub.COMMIT.fullmatch(revision or ""):  # a whole commit needs no asking, so it works without the hub
        revision = hub.commit_of(repo_id, revision, repo_type="dataset")
    return f"{PREFIX}{repo_id}{f':{config}' if config else ''}@{revision}"


def _parts(name: str) -> tuple[str, str | None, str | None]:
    """The repository, config and revision in a name."""
    if not NAME.fullmatch(name):
        expected = "hub:OWNER/NAME, hub:OWNER/NAME:CONFIG, either with @REVISION"
        raise InputError("not a dataset's name", where="data.source", expected=expected, got=PREFIX + name)
    rest, revision = hub.split_revision(name)
    repo_id, _, config = rest.partition(":")
    return repo_id, config or None, revision


def _builder(repo_id: str, config: str | None, commit: str) -> "datasets.DatasetBuilder":
    """The cached copy of this very commit, without asking the hub, else what `datasets` makes of it."""
    import datasets

    if cached := _cached(config, commit):
        from datasets.packaged_modules.cache.cache import Cache

        dataset_name, version = repo_id.partition("/")[2], cached.parent.name
        config_name = cached.parent.parent.name
        return Cache(repo_id=repo_id, dataset_name=dataset_name, config_name=config_name, version=version, hash=commit)
    if Path(repo_id).is_dir():  # `datasets` would read it
        what, expected = "a folder has the dataset's name", "another working directory, or its path as data.source"
        raise InputError(what, where=Path(repo_id).absolute(), expected=expected)
    builder = datasets.load_dataset_builder(repo_id, config, revision=commit)
    if builder.hash != commit:  # out of reach of the hub, `datasets` takes whatever copy it has
        what = "the dataset's cache has not this commit"
        raise hub.HubUnreachable(what, where=f"{repo_id}@{commit}", reason=f"a copy of {builder.hash}")
    return builder


def _cached(config: str | None, commit: str) -> Path | None:
    """The folder where `datasets` keeps a commit: .../OWNER___NAME/CONFIG/VERSION/COMMIT."""
    import datasets

    cache = Path(datasets.config.HF_DATASETS_CACHE).expanduser()
    folders = [path.parent for path in cache.glob(f"*/*/*/{commit}/dataset_info.json")]
    if config:
        folders = [path for path in folders if path.parent.parent.name == config]
    return folders[0] if len(folders) == 1 else None


def _in_our_words(error: Exception, place: str, config: str | None) -> InputError:
    if configs := CONFIGS.search(str(error)):
        names = configs[1].replace("'", "")
        what = "no such config of the dataset" if config else "the dataset has several configs"
        return InputError(what, where=place, expected=f"hub:OWNER/NAME:CONFIG with one of {names}", got=config)
    if "scripts are no longer supported" in str(error):
        expected = "a dataset of parquet, jsonl or csv files"
        return InputError(
            "the dataset needs a loading script, which `datasets` no longer runs", where=place, expected=expected
        )
    return InputError("`datasets` cannot read the dataset", where=place, got=catalogs.first_line(error))


def _values(split: "datasets.Dataset", names: Sequence[str]) -> Iterator[catalogs.Values]:
    for batch in split.select_columns(list(dict.fromkeys(names))).iter(batch_size=1000):
        yield from zip(*(batch[name] for name in names), strict=True)

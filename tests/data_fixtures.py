"""Fixtures of the rooms that read, check and keep data; a conftest in each of their folders imports them."""

import shutil

import pytest


@pytest.fixture
def write_table():
    """Writes rows of text and label as csv or tsv, by the file's suffix; returns the path."""

    def write_table(path, rows):
        delimiter = "\t" if path.suffix == ".tsv" else ","
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(delimiter.join(row) for row in [("text", "label"), *rows]) + "\n", encoding="utf-8")
        return path

    return write_table


@pytest.fixture
def datasets_cache(empty_hub_cache, tmp_path, monkeypatch):
    """Empty caches of huggingface_hub and datasets; returns the folder of the latter."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    return tmp_path / "datasets"


@pytest.fixture
def add_dataset(hub, datasets_cache):
    """Puts a dataset on the hub, returns its commit; it is taken down again after the test."""
    added = set()

    def put(repository, files):
        added.add(hub.folder / "datasets" / repository)
        return hub.add(repository, files, kind="datasets")

    yield put
    for folder in added:
        shutil.rmtree(folder)
    hub.reset()


@pytest.fixture
def unplug(monkeypatch):
    """Makes huggingface_hub and datasets refuse every request at once, as HF_HUB_OFFLINE does."""
    import datasets
    import huggingface_hub

    def unplug():
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)

    return unplug


@pytest.fixture(autouse=True)
def data_cache(tmp_path, monkeypatch):
    """An empty cache of rows and tokens; returns its folder."""
    from tf_finetune.data import cache

    monkeypatch.setenv("TF_FINETUNE_CACHE", str(tmp_path / "cache of ours"))
    monkeypatch.setattr(cache, "_temporary", None)
    return cache.folder()

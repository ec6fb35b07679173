from types import SimpleNamespace

import numpy
import pytest

from tf_finetune.data import sources
from tf_finetune.errors import InputError
from tf_finetune.readers import tfds_datasets
from tf_finetune.readers.rows import Columns, refuse


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A tfds data folder with three small datasets, written and later read by tfds itself."""
    import tensorflow_datasets as tfds

    folder = tmp_path_factory.mktemp("tfds")
    text, classes = tfds.features.Text(), tfds.features.ClassLabel(names=["neg", "pos"])

    def store(name, config, features, **splits):
        tfds.dataset_builders.store_as_tfds_dataset(
            name,
            version="1.0.0",
            config=config,
            features=tfds.features.FeaturesDict(features),
            split_datasets={split: list(enumerate(examples)) for split, examples in splits.items()},
            data_dir=folder,
        )

    def films(count, label=None):
        return [{"text": f"film {i} é", "label": i % 2 if label is None else label} for i in range(count)]

    store("imdb_reviews", "plain_text", {"text": text, "label": classes},
          train=films(40), test=films(6), unsupervised=films(3, -1))  # fmt: skip
    part = [*films(4), {"text": "unrated", "label": -1}]
    store("films", None, {"text": text, "label": classes}, validation=part, test=films(2, -1))
    stars = [{"body": f"t{i}".encode(), "stars": i % 3} for i in range(6)]
    plain = {"body": tfds.features.Tensor(shape=(), dtype=numpy.str_), "stars": numpy.int32}
    store("stars", None, plain, test=stars)
    store("latin", None, plain, test=[{"body": b"caf\xe9", "stars": 1}])
    tags = tfds.features.Sequence(tfds.features.ClassLabel(names=["calm", "angry", "late"]))
    store("tags", None, {"text": text, "other": text, "tags": tags, "score": numpy.float32, "count": numpy.int32},
          test=[{"text": "a", "other": "c", "tags": [0, 2], "score": 0.5, "count": 3},
                {"text": "b", "other": "d", "tags": [], "score": 2.0, "count": 0}])  # fmt: skip
    return folder


@pytest.fixture(autouse=True)
def data_folder(prepared, monkeypatch):
    from tensorflow_datasets.core import constants

    monkeypatch.setattr(constants, "DATA_DIR", str(prepared))


def test_splits_classes_and_notes(capsys):
    splits = sources.load("tfds:imdb_reviews")
    assert splits.label_names == ("neg", "pos")
    test = splits.examples["test"]
    assert sorted(zip(test.texts, test.labels, strict=True)) == [(f"film {i} é", i % 2) for i in range(6)]
    assert len(splits.examples["train"]) + len(splits.examples["validation"]) == 40
    assert splits.notes == ("left out: split unsupervised (3 examples), which is none of train, validation, test",)
    assert splits.source == "tfds:imdb_reviews/plain_text:1.0.0"
    assert capsys.readouterr().out == ""
    assert sources.load(splits.source) == splits


def test_rows_without_labels_are_left_out():
    splits = sources.load("tfds:films")
    assert list(splits.examples) == ["validation"]
    assert len(splits.examples["validation"]) == 4
    assert set(splits.notes) == {
        "left out: split validation's 1 examples without labels",
        "left out: all of split test's 2 examples without labels",
    }


def test_plain_numbers_name_themselves():
    splits = sources.load("tfds:stars:1.0.0", columns=Columns("body", "stars"))
    assert splits.label_names == ("0", "1", "2")
    assert sorted(splits.examples["test"].labels) == [0, 0, 1, 1, 2, 2]


def test_lists_of_classes_by_name_fractions_pairs_and_weights():
    def rows(columns):
        return sorted(tfds_datasets.read("tags", columns).splits["test"](refuse))

    first, second = rows(Columns(label="tags", text_pair="other", weight="count"))
    assert first[:4] == ("a", ("calm", "late"), "c", 3.0)
    assert second[:4] == ("b", (), "d", 0.0)
    assert {first.where, second.where} == {f"tfds:tags split test row {number}" for number in (1, 2)}
    assert [row.label for row in rows(Columns(label="score"))] == ["0.5", "2.0"]


class TestPinned:
    @pytest.mark.parametrize(
        ("name", "pinned"),
        [
            ("imdb_reviews", "imdb_reviews/plain_text:1.0.0"),
            ("imdb_reviews:1.*.*", "imdb_reviews/plain_text:1.0.0"),
            ("glue/sst2", "glue/sst2:2.0.0"),
            ("ag_news_subset", "ag_news_subset:1.0.0"),
        ],
    )
    def test_config_and_version(self, name, pinned):
        assert sources.pinned(f"tfds:{name}") == f"tfds:{pinned}"


class TestFaults:
    def test_unknown_name(self):
        expected = "no such dataset in tfds, in data.source, expected one like imdb_reviews, got imdb_review$"
        with pytest.raises(InputError, match=expected):
            sources.load("tfds:imdb_review")

    def test_unknown_config(self):
        with pytest.raises(InputError, match="in tfds:glue/sst3, expected one of its configs cola, sst2, mrpc"):
            sources.load("tfds:glue/sst3")

    def test_unknown_version(self):
        with pytest.raises(InputError, match="in tfds:ag_news_subset:7.0.0, got AssertionError: .* only: 1.0.0"):
            sources.load("tfds:ag_news_subset:7.0.0")

    @pytest.mark.parametrize("name", ["", "a b", "glue/sst2/x=1", "huggingface:imdb", "/tmp"])
    def test_not_a_name(self, name):
        with pytest.raises(InputError, match="not a name of TensorFlow Datasets, in data.source, expected tfds:NAME"):
            sources.load(f"tfds:{name}")

    def test_missing_column(self):
        expected = "no such column, in tfds:glue/sst2:2.0.0, expected a column 'text', got .*sentence"
        with pytest.raises(InputError, match=expected):
            sources.load("tfds:glue/sst2")

    def test_not_utf8(self):
        with pytest.raises(InputError, match="text is not UTF-8, in tfds:latin:1.0.0 split test row 1, got byte 0xe9"):
            sources.load("tfds:latin", columns=Columns("body", "stars"))

    def test_download_fails(self, monkeypatch):
        fail(monkeypatch)
        expected = "tfds cannot prepare the dataset, in tfds:ag_news_subset:1.0.0, got ConnectionError: no road"
        with pytest.raises(InputError, match=expected):
            sources.load("tfds:ag_news_subset", columns=Columns("title"))


def fail(monkeypatch):
    import tensorflow_datasets as tfds

    def download_and_prepare(builder):
        raise ConnectionError("no road\nfrom here")

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", download_and_prepare)


class TestImdb:
    ROWS = "".join(f'{{"text": "hub {i}", "label": "{"ab"[i % 2]}"}}\n' for i in range(40)).encode()

    def test_hub_first(self, add_dataset):
        commit = add_dataset("stanfordnlp/imdb", {"train.jsonl": self.ROWS})
        splits = sources.load("imdb")
        assert splits.source == sources.pinned("imdb") == f"hub:stanfordnlp/imdb@{commit}"
        assert splits.examples["train"].texts[0].startswith("hub")
        assert splits.notes[0] == "imdb: read from hub:stanfordnlp/imdb"

    def test_tfds_where_the_hub_is_out_of_reach(self, datasets_cache, unplug):
        unplug()
        splits = sources.load("imdb")
        assert splits.source == sources.pinned("imdb") == "tfds:imdb_reviews/plain_text:1.0.0"
        assert splits.examples["train"].texts[0].startswith("film")
        expected = "imdb: read from tfds:imdb_reviews/plain_text, because the dataset is not in the cache"
        assert splits.notes[0].startswith(expected)

    def test_tfds_where_datasets_cannot_read_it(self, add_dataset):
        add_dataset("stanfordnlp/imdb", {"imdb.py": b""})
        splits = sources.load("imdb")
        assert splits.source == "tfds:imdb_reviews/plain_text:1.0.0"
        assert "because the dataset needs a loading script" in splits.notes[0]

    def test_the_builder_that_tfds_ships(self, datasets_cache, unplug, monkeypatch, tmp_path):
        """The real imdb_reviews of tfds, its features and classes, over tfds's own mock of the examples."""
        import tensorflow_datasets as tfds

        unplug()
        monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(tmp_path))
        # The mock knows no splits before a download.
        sizes = {"train": 20, "test": 20, "unsupervised": 20}
        splits = {name: SimpleNamespace(num_examples=size, num_bytes=0) for name, size in sizes.items()}
        monkeypatch.setattr(tfds.core.DatasetInfo, "splits", splits)
        with tfds.testing.mock_data(num_examples=20, policy=tfds.testing.MockPolicy.USE_CODE):
            read = sources.load("imdb", validation_examples=5)
        assert read.source == "tfds:imdb_reviews/plain_text:1.0.0"
        assert read.label_names == ("neg", "pos")
        assert {name: len(examples) for name, examples in read.examples.items()} == {
            "train": 15, "validation": 5, "test": 20
        }  # fmt: skip
        assert all(isinstance(text, str) for text in read.examples["train"].texts)

    def test_neither(self, datasets_cache, unplug, monkeypatch):
        unplug()
        fail(monkeypatch)
        expected = "imdb is to be had neither from the hub nor from tfds, .* not in the cache.*; tfds: .*no road$"
        with pytest.raises(InputError, match=expected):
            sources.load("imdb")

    def test_has_no_columns_to_choose(self):
        with pytest.raises(
            InputError, match="imdb has no columns to choose from, in data.text_column, expected 'text'"
        ):
            sources.load("imdb", columns=Columns("body"))

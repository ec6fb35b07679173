import io
import json
import subprocess
import sys

import datasets
import pytest
from stand_ins import dataset_card, dataset_files, parquet_file

from tf_finetune import hub as hub_module
from tf_finetune.checks import data_report
from tf_finetune.data import sources
from tf_finetune.errors import InputError
from tf_finetune.readers import hub_datasets
from tf_finetune.readers.rows import Columns, Row, refuse


def film_files(size=40, **extra):
    """The files of a dataset laid out as stanfordnlp/imdb is."""
    return dataset_files(
        {
            "train": [(f"film {i}", i % 2) for i in range(size)],
            "test": [(f"other film {i}", i % 2) for i in range(4)],
            "unsupervised": [("unrated", -1)] * 3,
            **extra,
        }
    )


def test_splits_classes_and_notes(add_dataset):
    commit = add_dataset("me/films", film_files())
    splits = sources.load("hub:me/films")
    assert splits.label_names == ("neg", "pos")
    assert splits.examples["test"].texts == [f"other film {i}" for i in range(4)]
    assert splits.examples["test"].labels.tolist() == [0, 1, 0, 1]
    assert len(splits.examples["train"]) + len(splits.examples["validation"]) == 40
    assert splits.notes == ("left out: split unsupervised (3 examples), which is none of train, validation, test",)
    assert splits.source == f"hub:me/films@{commit}"


def test_rows_without_labels_are_left_out(add_dataset):
    rows = [("good", 1), ("bad", 0), ("unrated", -1)]
    add_dataset("me/films", film_files(validation=rows, test=[("hidden", -1)] * 2))
    splits = sources.load("hub:me/films")
    assert splits.examples["validation"].texts == ["good", "bad"]
    assert "test" not in splits.examples
    assert "left out: all of split test's 2 examples without labels" in splits.notes
    assert "left out: split validation's 1 examples without labels" in splits.notes


def test_nothing_with_labels(add_dataset):
    files = {"README.md": dataset_card(plain_text=["unsupervised"])}
    add_dataset("me/films", files | {"plain_text/unsupervised-00000-of-00001.parquet": parquet_file([("unrated", -1)])})
    with pytest.raises(InputError, match="no split with labels, in hub:me/films.*got left out: split unsupervised"):
        sources.load("hub:me/films")


def test_jsonl_without_a_card(add_dataset):
    lines = "".join(json.dumps({"body": f"t{i}", "stars": i % 3}) + "\n" for i in range(6))
    add_dataset("me/stars", {"test.jsonl": lines.encode()})
    splits = sources.load("hub:me/stars", columns=Columns("body", "stars"))
    assert splits.label_names == ("0", "1", "2")
    assert list(splits.examples) == ["test"]


def found(name, columns):
    """Every row of a dataset's splits, and the notes once all is read."""
    result = hub_datasets.read(name, columns)
    return {split: list(reader(refuse)) for split, reader in result.splits.items()}, result.notes


def test_lists_of_classes_by_name_fractions_pairs_and_weights(add_dataset):
    features = datasets.Features(
        {
            "text": datasets.Value("string"),
            "other": datasets.Value("string"),
            "tags": datasets.Sequence(datasets.ClassLabel(names=["calm", "angry", "late"])),
            "words": datasets.Sequence(datasets.Value("string")),
            "score": datasets.Value("float64"),
            "count": datasets.Value("int32"),
        }
    )
    table = {"text": ["a", "b"], "other": ["c", "d"], "tags": [[0, 2], []], "words": [["x"], []]}
    rows = datasets.Dataset.from_dict(table | {"score": [0.5, 2.0], "count": [3, 0]}, features=features)
    content = io.BytesIO()
    rows.to_parquet(content)
    name = f"me/tags@{add_dataset('me/tags', {'test.parquet': content.getvalue()})}"
    splits, _ = found(name, Columns(label="tags", text_pair="other", weight="count"))
    place = f"hub:{name} split test row"
    assert splits["test"] == [
        Row("a", ("calm", "late"), "c", 3.0, f"{place} 1"),
        Row("b", (), "d", 0.0, f"{place} 2"),
    ]
    assert [row.label for row in found(name, Columns(label="words"))[0]["test"]] == [("x",), ()]
    assert [row.label for row in found(name, Columns(label="score"))[0]["test"]] == ["0.5", "2.0"]


def test_notes_are_complete_once_all_is_read(add_dataset):
    rows = [("good", 1), ("unrated", -1), ("bad", 0)]
    name = f"me/films@{add_dataset('me/films', film_files(validation=rows))}"
    result = hub_datasets.read(name, Columns())
    note = "left out: split validation's 1 examples without labels"
    assert note not in result.notes
    for _ in range(2):
        places = [row.where.partition("split ")[2] for row in result.splits["validation"](refuse)]
        assert places == ["validation row 1", "validation row 3"]
        assert result.notes.count(note) == 1


def test_a_row_that_cannot_be_used_is_one_fault(add_dataset):
    lines = [{"text": "a", "label": "x"}, {"text": None, "label": "x"}, {"text": "c", "label": "y"}]
    commit = add_dataset("me/nulls", {"test.jsonl": "\n".join(map(json.dumps, lines)).encode()})
    said = []
    result = hub_datasets.read(f"me/nulls@{commit}", Columns())
    assert [row.text for row in result.splits["test"](said.append)] == ["a", "c"]
    assert [str(error) for error in said] == [
        f"a text is not a string, in hub:me/nulls@{commit} split test row 2, got nothing"
    ]


def test_missing_column(add_dataset):
    add_dataset("me/films", film_files())
    expected = "no such column, in hub:me/films@.*, expected a column 'stars', got text, label"
    with pytest.raises(InputError, match=expected):
        sources.load("hub:me/films", columns=Columns(label="stars"))


class TestConfigs:
    @pytest.fixture(autouse=True)
    def two(self, add_dataset):
        files = {"README.md": dataset_card(long=["test"], short=["test"])}
        for name in ("long", "short"):
            files[f"{name}/test-00000-of-00001.parquet"] = parquet_file([(f"{name} {i}", i % 2) for i in range(4)])
        self.commit = add_dataset("me/two", files)

    def test_given(self):
        splits = sources.load("hub:me/two:short")
        assert splits.examples["test"].texts[0] == "short 0"
        assert splits.source == f"hub:me/two:short@{self.commit}"

    def test_none_given(self):
        expected = (
            "the dataset has several configs, in hub:me/two.*, expected hub:OWNER/NAME:CONFIG with one of long, short$"
        )
        with pytest.raises(InputError, match=expected):
            sources.load("hub:me/two")

    def test_unknown(self):
        expected = "no such config of the dataset, in hub:me/two:tall.*with one of long, short, got tall"
        with pytest.raises(InputError, match=expected):
            sources.load("hub:me/two:tall")


class TestPinned:
    def test_nothing_is_downloaded(self, add_dataset, hub):
        add_dataset("me/films", film_files())
        sources.pinned("hub:me/films")
        assert hub.fetched() == []

    def test_config_and_branch(self, add_dataset, hub):
        commit = add_dataset("me/films", film_files())
        hub.tags["me/films"] = {"v1"}
        assert sources.pinned("hub:me/films:plain_text@v1") == f"hub:me/films:plain_text@{commit}"

    def test_a_whole_commit_needs_no_hub(self, hub, datasets_cache):
        hub.down = 503
        assert sources.pinned("hub:me/films@" + "a" * 40) == "hub:me/films@" + "a" * 40


class TestOutOfReach:
    def test_cached_commit(self, add_dataset, hub):
        add_dataset("me/films", film_files())
        before = sources.load("hub:me/films")
        hub.down = 503
        hub.requests.clear()
        assert sources.load(before.source) == before
        assert hub.requests == []

    def test_cached_branch(self, add_dataset, unplug):
        add_dataset("me/films", film_files())
        before = sources.load("hub:me/films")
        unplug()
        assert sources.load("hub:me/films") == before

    def test_the_older_of_two_cached_commits(self, add_dataset):
        add_dataset("me/films", film_files())
        before = sources.load("hub:me/films")
        add_dataset("me/films", film_files(size=60))
        after = sources.load("hub:me/films")
        assert len(after.examples["train"]) > len(before.examples["train"])
        assert sources.load(before.source) == before
        assert sources.load(after.source) == after

    def test_a_commit_that_the_cache_has_not(self, add_dataset, unplug):
        commit = add_dataset("me/films", film_files())
        sources.load("hub:me/films")
        unplug()
        expected = f"the dataset's cache has not this commit, in me/films@aaaa.*got a copy of {commit}"
        with pytest.raises(hub_module.HubUnreachable, match=expected):
            sources.load("hub:me/films@" + "a" * 40)

    def test_nothing_cached(self, unplug, datasets_cache):
        unplug()
        with pytest.raises(hub_module.HubUnreachable, match="the dataset is not in the cache, in me/films"):
            sources.load("hub:me/films")

    def test_offline_switch(self, add_dataset, hub_environment):
        add_dataset("me/films", film_files())
        code = "import sys; from tf_finetune.data import sources; s = sources.load(sys.argv[1]); print(s.source)"

        def run(source, **environment):
            command = [sys.executable, "-c", code, source]
            result = subprocess.run(command, env=hub_environment | environment, capture_output=True, text=True)
            assert result.returncode == 0, result.stderr
            return result.stdout.strip()

        pinned = run("hub:me/films")
        assert run(pinned, HF_HUB_OFFLINE="1") == run("hub:me/films", HF_HUB_OFFLINE="1") == pinned


class TestFaults:
    def test_no_such_dataset(self, datasets_cache):
        with pytest.raises(InputError, match="no such dataset on the hub.*got me/absent"):
            sources.load("hub:me/absent")

    def test_no_such_revision(self, add_dataset):
        add_dataset("me/films", film_files())
        with pytest.raises(InputError, match="no such revision, in me/films.*got v9"):
            sources.load("hub:me/films@v9")

    def test_no_such_commit(self, add_dataset):
        add_dataset("me/films", film_files())
        with pytest.raises(InputError, match="a" * 40):
            sources.load("hub:me/films@" + "a" * 40)

    @pytest.mark.parametrize("name", ["films", "me/films:", "me/films@", "a/b/c", ""])
    def test_not_a_name(self, name):
        with pytest.raises(InputError, match="not a dataset's name, in data.source, expected hub:OWNER/NAME"):
            sources.pinned(hub_datasets.PREFIX + name)

    def test_loading_script(self, add_dataset):
        add_dataset("me/films", {"films.py": b"import datasets"})
        with pytest.raises(InputError, match="the dataset needs a loading script.*, in hub:me/films"):
            sources.load("hub:me/films")

    def test_broken_file(self, add_dataset):
        files = film_files()
        add_dataset("me/films", files | {"plain_text/test-00000-of-00001.parquet": b"no parquet"})
        with pytest.raises(InputError, match="`datasets` cannot read the dataset, in hub:me/films@"):
            sources.load("hub:me/films")

    def test_a_local_folder_of_the_same_name(self, add_dataset, tmp_path, monkeypatch):
        add_dataset("me/films", film_files())
        (tmp_path / "me" / "films").mkdir(parents=True)
        monkeypatch.chdir(tmp_path)
        with pytest.raises(
            InputError, match="a folder has the dataset's name, in .*me/films, expected another working"
        ):
            sources.load("hub:me/films")


def test_what_check_data_says_of_a_dataset(add_dataset):
    rows = [(f"film {i}", i % 2) for i in range(40)]
    commit = add_dataset("me/films", film_files(test=[("film 7", 1), ("unrated", -1)], validation=rows[:2]))
    result = data_report.check(
        sources.find("hub:me/films", Columns()),
        source="hub:me/films",
        count_tokens=lambda texts, pairs: [4] * len(texts),
        max_length=9,
    )
    assert [(row.where, row.like) for row in result.findings[0].rows] == [
        (f"hub:me/films@{commit} split {split} row {number}", f"hub:me/films@{commit} split train row {like}")
        for split, number, like in (("validation", 1, 1), ("validation", 2, 2), ("test", 1, 8))
    ]
    assert "left out: split test's 1 examples without labels" in result.notes

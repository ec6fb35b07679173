import gzip
import json

import pytest

from tf_finetune.data import sources
from tf_finetune.errors import InputError
from tf_finetune.readers import files
from tf_finetune.readers.rows import WHOLE, Columns, refuse

ROWS = [("x", "a"), ("y", "b")]


def read(source, **options):
    return files.read(str(source), Columns(), **({"whole_file": False} | options))


def texts(found):
    return {split: [row.text for row in reader(refuse)] for split, reader in found.splits.items()}


class TestNames:
    @pytest.mark.parametrize(
        ("name", "split"),
        [
            ("train.csv", "train"),
            ("validation.csv", "validation"),
            ("valid.tsv", "validation"),
            ("val.csv", "validation"),
            ("dev.csv", "validation"),
            ("test.tsv", "test"),
            ("train-00000-of-00004.csv", "train"),
            ("train_1.csv", "train"),
            ("test-2.csv", "test"),
            ("testing.csv", WHOLE),
            ("train_new.csv", WHOLE),
            ("reviews.csv", WHOLE),
        ],
    )
    def test_split_of_a_file(self, tmp_path, write_table, name, split):
        assert texts(read(write_table(tmp_path / name, ROWS))) == {split: ["x", "y"]}

    def test_gzipped(self, tmp_path):
        (tmp_path / "dev.jsonl.gz").write_bytes(gzip.compress(b'{"text": "x", "label": 1}\n', mtime=0))
        assert texts(read(tmp_path / "dev.jsonl.gz")) == {"validation": ["x"]}

    @pytest.mark.parametrize("name", ["train.csv", "reviews.csv"])
    def test_a_whole_file_is_the_test_split(self, tmp_path, write_table, name):
        assert texts(read(write_table(tmp_path / name, ROWS), whole_file=True)) == {"test": ["x", "y"]}


class TestSeveralFiles:
    @pytest.fixture(autouse=True)
    def parts(self, tmp_path, write_table, monkeypatch):
        write_table(tmp_path / "parts" / "a.csv", [("1", "a")])
        write_table(tmp_path / "parts" / "b.csv", [("2", "b")])
        write_table(tmp_path / "parts" / "deep" / "c.csv", [("3", "b")])
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("HOME", str(tmp_path))

    @pytest.mark.parametrize(
        ("source", "found"),
        [
            ("parts/a.csv,parts/b.csv", "1 2"),
            ("parts/b.csv, parts/a.csv,", "2 1"),
            ("parts/*.csv", "1 2"),
            ("~/parts/*.csv", "1 2"),
            ("~/parts/a.csv", "1"),
            ("parts/**/*.csv", "1 2 3"),
            ("parts/[b].csv,parts/deep/*", "2 3"),
            ("parts/*.csv,parts/a.csv", "1 2"),
        ],
    )
    def test_joined_where_none_names_a_split(self, source, found):
        assert texts(read(source)) == {WHOLE: found.split()}
        assert texts(read(source, whole_file=True)) == {"test": found.split()}
        assert texts(read(files.absolute(source))) == {WHOLE: found.split()}

    def test_absolute_from_another_folder(self, tmp_path, monkeypatch):
        folder = tmp_path / "odd [name]"
        (tmp_path / "parts").rename(folder)
        monkeypatch.chdir(folder)
        absolute = files.absolute("a.csv, *.csv")
        monkeypatch.chdir("/")
        assert texts(read(absolute)) == {WHOLE: ["1", "2"]}

    def test_splits_by_name(self, write_table, tmp_path):
        for number in range(3):
            write_table(tmp_path / f"train-{number}-of-3.csv", [(f"t{number}", "a")])
        write_table(tmp_path / "test.tsv", [("u", "a")])
        assert texts(read("train-*.csv,test.tsv")) == {"train": ["t0", "t1", "t2"], "test": ["u"]}
        assert texts(read("train-*.csv,test.tsv", whole_file=True)) == {"train": ["t0", "t1", "t2"], "test": ["u"]}

    def test_a_mix_names_the_odd_one(self, write_table, tmp_path):
        write_table(tmp_path / "train.csv", ROWS)
        expected = "a file without a split's name among files with one, in .*, expected all .* or none, got parts/b.csv"
        with pytest.raises(InputError, match=expected):
            read("train.csv,parts/b.csv")

    @pytest.mark.parametrize("source", ["parts/a.csv,absent.csv", "absent*.csv", "parts/a.csv,parts", ",", ""])
    def test_nothing_there(self, source):
        got = {"parts/a.csv,absent.csv": "absent.csv", "parts/a.csv,parts": "parts", ",": "','", "": "''"}
        expected = "no such data, in data.source, expected reviews, product_reviews, imdb, hub:OWNER/NAME, .*, got "
        for function in (read, files.absolute):
            with pytest.raises(InputError) as caught:
                function(source)
            assert str(caught.value).startswith(expected.partition(" .*")[0])
            assert str(caught.value).endswith(f"got {got.get(source, source)}")

    def test_a_name_with_a_comma(self, write_table, tmp_path):
        write_table(tmp_path / "a,b.csv", ROWS)
        assert texts(read("a,b.csv")) == {WHOLE: ["x", "y"]}
        assert files.absolute("a,b.csv") == str(tmp_path / "a,b.csv")


class TestFolderOfTables:
    def test_files_named_by_split(self, tmp_path, write_table):
        write_table(tmp_path / "train.csv", ROWS)
        write_table(tmp_path / "dev.tsv", [("z", "a")])
        write_table(tmp_path / "test-0-of-2.csv", [("v", "b")])
        (tmp_path / "test-1-of-2.jsonl").write_text(json.dumps({"text": "w", "label": "b"}))
        write_table(tmp_path / "scores.csv", [("ignored", "c")])
        (tmp_path / "README.md").write_text("not data")
        found = read(tmp_path)
        assert texts(found) == {"train": ["x", "y"], "validation": ["z"], "test": ["v", "w"]}
        assert found.notes == ["left out: scores.csv (no split's name)"]

    def test_folders_named_by_split(self, tmp_path, write_table):
        write_table(tmp_path / "train" / "0000.csv", [("x", "a")])
        write_table(tmp_path / "train" / "0001.csv", [("y", "b")])
        write_table(tmp_path / "test" / "part.csv", [("z", "b")])
        write_table(tmp_path / "other" / "part.csv", [("ignored", "b")])
        assert texts(read(tmp_path)) == {"train": ["x", "y"], "test": ["z"]}

    def test_neither(self, tmp_path, write_table):
        write_table(tmp_path / "a.csv", ROWS)
        expected = (
            r"no splits in the data folder, in .*, expected train\.csv, train/\*\.parquet, train/CLASS/\*\.txt "
            r"or the like, or a glob such as '.*/\*\.csv'"
        )
        with pytest.raises(InputError, match=expected):
            read(tmp_path)


class TestFolderOfClasses:
    @pytest.fixture
    def acl_imdb(self, tmp_path):
        for split in ("train", "test"):
            for label in ("pos", "neg"):
                (tmp_path / split / label).mkdir(parents=True)
                for i in range(40):
                    text = f"{split} {label} {i}<br />"
                    (tmp_path / split / label / f"{i}_{i % 10}.txt").write_text(text, encoding="utf-8")
            (tmp_path / split / "urls_pos.txt").write_text("http://")
        (tmp_path / "train" / "unsup").mkdir()
        (tmp_path / "train" / "unsup" / "0_0.txt").write_text("unlabelled")
        (tmp_path / "imdb.vocab").write_text("the")
        return tmp_path

    def test_sizes_and_labels(self, acl_imdb):
        splits = sources.load(str(acl_imdb))
        assert splits.label_names == ("neg", "pos")
        assert len(splits.examples["test"]) == 80
        assert len(splits.examples["train"]) + len(splits.examples["validation"]) == 80

    def test_unsup_is_left_out(self, acl_imdb):
        splits = sources.load(str(acl_imdb))
        assert all("unlabelled" not in split.texts for split in splits.examples.values())
        assert splits.notes == ("left out: train/unsup (1 texts without labels)",)

    def test_has_no_columns_to_choose(self, acl_imdb):
        expected = "a folder of classes has no columns to choose from, in data.text_column, expected 'text', got 'body'"
        with pytest.raises(InputError, match=expected):
            sources.load(str(acl_imdb), columns=Columns(text="body"))

    def test_each_text_has_the_label_of_its_folder(self, acl_imdb):
        splits = sources.load(str(acl_imdb))
        for split in splits.examples.values():
            assert [text.split()[1] for text in split.texts] == [splits.label_names[i] for i in split.labels]

    def test_line_ends_stay_as_they_are(self, acl_imdb):
        (acl_imdb / "test" / "pos" / "x.txt").write_bytes(b"\xef\xbb\xbfone\r\ntwo\n")
        assert "one\r\ntwo\n" in sources.load(str(acl_imdb)).examples["test"].texts

    def test_latin_1_file_is_named(self, acl_imdb):
        (acl_imdb / "test" / "pos" / "x.txt").write_bytes(b"caf\xe9")
        with pytest.raises(InputError, match=r"text is not UTF-8, in .*test/pos/x\.txt line 1, got byte 0xe9"):
            sources.load(str(acl_imdb))

    def test_two_names_of_one_split_are_joined(self, acl_imdb):
        for name in ("valid", "dev"):
            (acl_imdb / name / "pos").mkdir(parents=True)
            (acl_imdb / name / "pos" / "x.txt").write_text(name)
        assert sorted(sources.load(str(acl_imdb)).examples["validation"].texts) == ["dev", "valid"]

import io
import tarfile

import pytest

from tf_finetune import packages
from tf_finetune.data import sources
from tf_finetune.errors import InputError

HEADER = "text,label\n"
# Two hundred texts of which, by hash, every split gets some.
ROWS = [(f"text number {i}", "ab"[i % 2]) for i in range(200)]


def write_table(path, rows=ROWS):
    delimiter = "\t" if path.suffix == ".tsv" else ","
    lines = [delimiter.join(("text", "label")), *(delimiter.join(row) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def write_bytes(folder, content, name="test.csv"):
    (folder / name).write_bytes(content)
    return str(folder / name)


def load_test(path, **options):
    """Texts and label names of a file named test.*, which is taken as it is."""
    splits = sources.load(str(path), **options)
    test = splits.examples["test"]
    return list(zip(test.texts, (splits.label_names[i] for i in test.labels), strict=True))


class TestTable:
    def test_csv(self, tmp_path):
        path = write_bytes(tmp_path, b"text,label\nfine,b\nbad,a\n")
        splits = sources.load(path)
        assert splits.label_names == ("a", "b")
        assert splits.examples == {"test": sources.Examples(["fine", "bad"], [1, 0])}

    def test_tsv_quotes_are_text(self, tmp_path):
        path = write_bytes(tmp_path, b'text\tlabel\n"Great" film\tx\nsaid "no\ty\n', "test.tsv")
        assert sources.load(path).examples["test"].texts == ['"Great" film', 'said "no']

    def test_a_text_may_be_long(self, tmp_path):
        path = write_bytes(tmp_path, b"text,label\n" + b"x" * 200_000 + b",a\nc,b\n")
        assert len(sources.load(path).examples["test"].texts[0]) == 200_000

    def test_tsv_commas_are_text(self, tmp_path):
        path = write_bytes(tmp_path, b"text\tlabel\na, b\tx\nc\ty\n", "test.tsv")
        assert load_test(path) == [("a, b", "x"), ("c", "y")]

    def test_byte_order_mark(self, tmp_path):
        path = write_bytes(tmp_path, b"\xef\xbb\xbftext,label\nfine,b\nbad,a\n")
        assert load_test(path) == [("fine", "b"), ("bad", "a")]

    @pytest.mark.parametrize("end", [b"\r\n", b"\r"], ids=["windows", "old_mac"])
    def test_other_line_ends(self, tmp_path, end):
        path = write_bytes(tmp_path, end.join((b"text,label", b"fine,b", b"bad,a", b"")))
        assert load_test(path) == [("fine", "b"), ("bad", "a")]

    def test_no_line_end_at_the_end(self, tmp_path):
        assert load_test(write_bytes(tmp_path, b"text,label\nfine,b\nbad,a")) == [("fine", "b"), ("bad", "a")]

    def test_quoted_newline_comma_and_quote(self, tmp_path):
        path = write_bytes(tmp_path, b'text,label\n"one,\r\ntwo ""three""",b\nbad,a\n')
        assert load_test(path) == [('one,\r\ntwo "three"', "b"), ("bad", "a")]

    def test_rare_line_separators_stay_in_the_text(self, tmp_path):
        path = write_bytes(tmp_path, "text,label\na\u2028b\x85c\x0bd,b\nbad,a\n".encode())
        assert load_test(path)[0] == ("a\u2028b\x85c\x0bd", "b")

    def test_columns_by_name_in_any_order(self, tmp_path):
        path = write_bytes(tmp_path, b"id,stars,review\n7,b,fine\n8,a,bad\n")
        assert load_test(path, text_column="review", label_column="stars") == [("fine", "b"), ("bad", "a")]

    def test_empty_lines_are_skipped(self, tmp_path):
        assert load_test(write_bytes(tmp_path, b"text,label\n\nfine,b\n\nbad,a\n\n")) == [("fine", "b"), ("bad", "a")]

    def test_labels_are_stripped_and_texts_are_not(self, tmp_path):
        assert load_test(write_bytes(tmp_path, b"text,label\n fine , b \nbad,a\n"))[0] == (" fine ", "b")

    @pytest.mark.parametrize(("row", "got"), [(b"one,two,a", 3), (b"one", 1)], ids=["more", "fewer"])
    def test_wrong_number_of_columns(self, tmp_path, row, got):
        path = write_bytes(tmp_path, b"text,label\nfine,b\n" + row + b"\n")
        with pytest.raises(InputError, match=rf"wrong number of columns, in .*test\.csv line 3, expected 2, got {got}"):
            sources.load(path)

    @pytest.mark.parametrize("label", [b"", b"  "])
    def test_missing_label(self, tmp_path, label):
        path = write_bytes(tmp_path, b'text,label\n"two\nlines",b\nbad,' + label + b"\n")
        with pytest.raises(InputError, match=r"a label is missing, in .*test\.csv line 4$"):
            sources.load(path)

    @pytest.mark.parametrize("column", ["text", "label"])
    def test_missing_column(self, tmp_path, column):
        path = write_bytes(tmp_path, HEADER.replace(column, "extra").encode() + b"a,b\n")
        with pytest.raises(
            InputError, match=rf"no such column, in .*test\.csv, expected a column '{column}', got .*extra"
        ):
            sources.load(path)

    def test_empty_file(self, tmp_path):
        with pytest.raises(InputError, match="no such column, in .*, expected a column 'text', got an empty file"):
            sources.load(write_bytes(tmp_path, b""))

    def test_unclosed_quote(self, tmp_path):
        with pytest.raises(InputError, match=r"malformed table, in .*test\.csv line 2, got unexpected end of data"):
            sources.load(write_bytes(tmp_path, b'text,label\n"fine,b\n'))

    def test_latin_1(self, tmp_path):
        with pytest.raises(InputError, match=r"text is not UTF-8, in .*test\.csv, got byte 0xe9"):
            sources.load(write_bytes(tmp_path, "text,label\ncafé,b\n".encode("latin-1")))

    def test_unknown_suffix(self, tmp_path):
        with pytest.raises(
            InputError, match=r"unknown kind of data file, in .*data\.xlsx, expected one of \.csv, \.tsv"
        ):
            sources.load(write_bytes(tmp_path, b"", "data.xlsx"))

    def test_no_such_file(self, tmp_path):
        expected = "no such data, in data.source, expected reviews, a csv or tsv file, or a folder, got .*absent.csv"
        with pytest.raises(InputError, match=expected):
            sources.load(str(tmp_path / "absent.csv"))


class TestSplits:
    def test_single_file_is_split_80_10_10(self, tmp_path):
        examples = sources.load(str(write_table(tmp_path / "all.csv"))).examples
        assert list(examples) == ["train", "validation", "test"]
        assert sorted(text for split in examples.values() for text in split.texts) == sorted(text for text, _ in ROWS)
        assert 140 <= len(examples["train"]) <= 180

    def test_split_depends_on_the_text_alone(self, tmp_path):
        forward = sources.load(str(write_table(tmp_path / "a.csv"))).examples
        backward = sources.load(str(write_table(tmp_path / "b.tsv", ROWS[::-1])), seed=9).examples
        assert {name: set(split.texts) for name, split in forward.items()} == {
            name: set(split.texts) for name, split in backward.items()
        }

    def test_split_rule_is_the_documented_one(self):
        # sha256 as an integer, mod 10: a change would move examples between test and train.
        assert [sources._tenth(text) for text in ("a", "b", "", "é")] == [9, 5, 9, 8]

    def test_text_that_comes_twice_is_in_one_split(self, tmp_path):
        examples = sources.load(str(write_table(tmp_path / "all.csv", ROWS + ROWS))).examples
        assert not set(examples["train"].texts) & set(examples["validation"].texts + examples["test"].texts)

    def test_file_named_test_is_taken_whole(self, tmp_path):
        examples = sources.load(str(write_table(tmp_path / "test.csv"))).examples
        assert list(examples) == ["test"]
        assert examples["test"].texts == [text for text, _ in ROWS]

    def test_file_named_train_gives_a_validation_split(self, tmp_path):
        examples = sources.load(str(write_table(tmp_path / "train.csv"))).examples
        assert sorted(examples) == ["train", "validation"]
        assert len(examples["train"]) + len(examples["validation"]) == len(ROWS)

    def test_folder_of_files(self, tmp_path):
        write_table(tmp_path / "train.csv", [("x", "a"), ("y", "b")])
        write_table(tmp_path / "dev.tsv", [("z", "a")])
        write_table(tmp_path / "test.csv", [("w", "b")])
        write_table(tmp_path / "notes.csv", [("ignored", "c")])
        splits = sources.load(str(tmp_path))
        assert {name: split.texts for name, split in splits.examples.items()} == {
            "train": ["x", "y"], "validation": ["z"], "test": ["w"],
        }  # fmt: skip
        assert splits.label_names == ("a", "b")

    @pytest.mark.parametrize("name", ["validation", "valid", "dev"])
    def test_names_of_validation(self, tmp_path, name):
        write_table(tmp_path / "train.csv")
        write_table(tmp_path / f"{name}.csv", [("z", "a")])
        examples = sources.load(str(tmp_path)).examples
        assert examples["validation"].texts == ["z"]
        assert len(examples["train"]) == len(ROWS)

    def test_validation_carved_from_train_is_disjoint_and_complete(self, tmp_path):
        write_table(tmp_path / "train.csv")
        write_table(tmp_path / "test.csv", [("w", "b")])
        examples = sources.load(str(tmp_path)).examples
        train, validation = set(examples["train"].texts), set(examples["validation"].texts)
        assert not train & validation
        assert train | validation == {text for text, _ in ROWS}
        assert len(validation) < 40

    def test_folder_without_splits(self, tmp_path):
        expected = (
            r"no splits in the data folder, in .*, expected train\.csv, test\.csv \(or \.tsv\), or train/CLASS/\*\.txt"
        )
        with pytest.raises(InputError, match=expected):
            sources.load(str(tmp_path))

    def test_empty_split(self, tmp_path):
        write_table(tmp_path / "train.csv")
        write_table(tmp_path / "test.csv", [])
        with pytest.raises(InputError, match="the test split is empty, in .*, expected at least one example a split"):
            sources.load(str(tmp_path))


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
        examples = sources.load(str(acl_imdb)).examples
        assert all("unlabelled" not in split.texts for split in examples.values())

    def test_each_text_has_the_label_of_its_folder(self, acl_imdb):
        splits = sources.load(str(acl_imdb))
        for split in splits.examples.values():
            assert [text.split()[1] for text in split.texts] == [splits.label_names[i] for i in split.labels]

    def test_line_ends_stay_as_they_are(self, acl_imdb):
        (acl_imdb / "test" / "pos" / "x.txt").write_bytes(b"\xef\xbb\xbfone\r\ntwo\n")
        assert "one\r\ntwo\n" in sources.load(str(acl_imdb)).examples["test"].texts

    def test_latin_1_file_is_named(self, acl_imdb):
        (acl_imdb / "test" / "pos" / "x.txt").write_bytes(b"caf\xe9")
        with pytest.raises(InputError, match=r"text is not UTF-8, in .*test/pos/x\.txt, got byte 0xe9"):
            sources.load(str(acl_imdb))

    def test_two_names_of_one_split_are_joined(self, acl_imdb):
        for name in ("valid", "dev"):
            (acl_imdb / name / "pos").mkdir(parents=True)
            (acl_imdb / name / "pos" / "x.txt").write_text(name)
        assert sorted(sources.load(str(acl_imdb)).examples["validation"].texts) == ["dev", "valid"]


class TestLabels:
    def load(self, folder, train, test=None, **options):
        write_table(folder / "train.csv", train)
        write_table(folder / "validation.csv", train[:1])
        if test:
            write_table(folder / "test.csv", test)
        return sources.load(str(folder), **options)

    def test_alphabetic_order(self, tmp_path):
        rows = [("x", "good"), ("y", "bad"), ("z", "Average")]
        assert self.load(tmp_path, rows).label_names == ("Average", "bad", "good")

    def test_numeric_order(self, tmp_path):
        rows = [("x", "10"), ("y", "9"), ("z", "-1"), ("w", "0")]
        assert self.load(tmp_path, rows).label_names == ("-1", "0", "9", "10")

    def test_numbers_written_in_two_ways_have_one_order(self, tmp_path):
        rows = [("x", "1"), ("y", "01"), ("z", "001"), ("w", "0")]
        assert self.load(tmp_path, rows).label_names == ("0", "001", "01", "1")

    def test_almost_numbers_are_words(self, tmp_path):
        assert self.load(tmp_path, [("x", "--1"), ("y", "2")]).label_names == ("--1", "2")

    def test_one_class_only(self, tmp_path):
        expected = "only one class in the training data, in .*, expected two or more labels, got a$"
        with pytest.raises(InputError, match=expected):
            self.load(tmp_path, [("x", "a"), ("y", "a")], test=[("z", "b")])

    def test_label_only_outside_train(self, tmp_path):
        expected = "a label of the test split is unknown, in .*, expected a or b, got 'c'"
        with pytest.raises(InputError, match=expected):
            self.load(tmp_path, [("x", "a"), ("y", "b")], test=[("z", "c")])

    def test_label_only_outside_train_is_found_among_few_examples(self, tmp_path):
        test = [(f"t{i}", "a") for i in range(50)] + [("z", "c")]
        with pytest.raises(InputError, match="a label of the test split is unknown"):
            self.load(tmp_path, [("x", "a"), ("y", "b")], test=test, max_examples=1)

    def test_given_label_names_fix_the_order(self, tmp_path):
        splits = self.load(tmp_path, [("x", "a"), ("y", "b")], label_names=("b", "unused", "a"))
        assert splits.label_names == ("b", "unused", "a")
        assert splits.examples["train"].labels == [2, 0]

    def test_one_class_is_enough_where_label_names_are_given(self, tmp_path):
        assert self.load(tmp_path, [("x", "a")], label_names=("a", "b")).examples["train"].labels == [0]

    def test_unknown_label_against_given_label_names(self, tmp_path):
        with pytest.raises(InputError, match="label of the train split is unknown, .*expected a or c, got 'b'"):
            self.load(tmp_path, [("x", "a"), ("y", "b")], label_names=("a", "c"))


class TestMaxExamples:
    def load(self, folder, **options):
        return sources.load(str(write_table(folder / "test.csv")), **options).examples["test"]

    def test_draws_so_many(self, tmp_path):
        test = self.load(tmp_path, max_examples=20)
        assert len(test) == len(set(test.texts)) == 20

    def test_same_seed_same_draw(self, tmp_path):
        assert self.load(tmp_path, max_examples=20, seed=3) == self.load(tmp_path, max_examples=20, seed=3)

    def test_other_seed_other_draw(self, tmp_path):
        assert self.load(tmp_path, max_examples=20, seed=3) != self.load(tmp_path, max_examples=20, seed=4)

    def test_texts_keep_their_labels(self, tmp_path):
        test, truth = self.load(tmp_path, max_examples=20), dict(ROWS)
        assert ["ab"[label] for label in test.labels] == [truth[text] for text in test.texts]

    @pytest.mark.parametrize("max_examples", [0, 200, 1000])
    def test_all(self, tmp_path, max_examples):
        assert self.load(tmp_path, max_examples=max_examples).texts == [text for text, _ in ROWS]


def test_packaged_reviews_by_their_rule(tmp_path, monkeypatch):
    ratings = [1.5, -0.1, 0.0] * 100
    lines = [f"{i}\t{rating}\ttext \u2028 {i}" for i, rating in enumerate(ratings)]
    lines += ["900\t3\ttext \u2028 1"]  # a text that was there already, rated otherwise
    inner = _archive({sources.REVIEWS_FILE: "\r\n".join(lines).encode() + b"\r\n"})
    path = tmp_path / "vaderSentiment-2.5.tar.gz"
    path.write_bytes(_archive({f"vaderSentiment-2.5/additional_resources/{sources.REVIEWS_ARCHIVE}": inner}))
    monkeypatch.setattr(packages, "fetch", lambda requirement, *, source_archive: path)
    splits = sources.load("reviews")
    assert splits.label_names == ("negative", "positive")
    found = {
        text: label for split in splits.examples.values() for text, label in zip(split.texts, split.labels, strict=True)
    }
    assert found == {f"text \u2028 {i}": int(rating > 0) for i, rating in enumerate(ratings) if rating}
    assert sum(len(split) for split in splits.examples.values()) == 200


def _archive(files):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()

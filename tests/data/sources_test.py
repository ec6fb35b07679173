import subprocess
import sys

import pytest

from tf_finetune.data import sources
from tf_finetune.errors import InputError


class TestLabels:
    @pytest.fixture
    def load(self, tmp_path, write_table):
        def load(train, test=None, **options):
            write_table(tmp_path / "train.tsv", train)
            write_table(tmp_path / "validation.tsv", train[:1])
            if test:
                write_table(tmp_path / "test.tsv", test)
            return sources.load(str(tmp_path), **options)

        return load

    def test_alphabetic_order(self, load):
        rows = [("x", "good"), ("y", "bad"), ("z", "Average")]
        assert load(rows).label_names == ("Average", "bad", "good")

    def test_numeric_order(self, load):
        rows = [("x", "10"), ("y", "9"), ("z", "-1"), ("w", "0")]
        assert load(rows).label_names == ("-1", "0", "9", "10")

    def test_numbers_written_in_two_ways_have_one_order(self, load):
        rows = [("x", "1"), ("y", "01"), ("z", "001"), ("w", "0")]
        assert load(rows).label_names == ("0", "001", "01", "1")

    @pytest.mark.parametrize("names", [("-1.0", "0.0", "2.0", "10.0"), ("0", "1.0", "2", "1e1")])
    def test_whole_numbers_with_a_point(self, load, names):
        assert load([(name, name) for name in sorted(names)]).label_names == names

    def test_fractional_numbers(self, load):
        expected = (
            "labels are fractional numbers, in .*, expected .* --config.model.problem_type=regression, got '0.5'$"
        )
        with pytest.raises(InputError, match=expected):
            load([("x", "1"), ("y", "0.5"), ("z", "2.0")])

    def test_fractional_numbers_among_words(self, load):
        assert load([("x", "v1"), ("y", "0.5")]).label_names == ("0.5", "v1")

    def test_almost_numbers_are_words(self, load):
        assert load([("x", "--1"), ("y", "2")]).label_names == ("--1", "2")

    def test_one_class_only(self, load):
        expected = "only one class in the training data, in .*, expected two or more labels, got a$"
        with pytest.raises(InputError, match=expected):
            load([("x", "a"), ("y", "a")], test=[("z", "b")])

    def test_label_only_outside_train(self, load):
        expected = "a label of the test split is unknown, in .*, expected a or b, got 'c'"
        with pytest.raises(InputError, match=expected):
            load([("x", "a"), ("y", "b")], test=[("z", "c")])

    def test_label_only_outside_train_is_found_among_few_examples(self, load):
        test = [(f"t{i}", "a") for i in range(50)] + [("z", "c")]
        with pytest.raises(InputError, match="a label of the test split is unknown"):
            load([("x", "a"), ("y", "b")], test=test, max_examples=1)

    def test_given_label_names_fix_the_order(self, load):
        splits = load([("x", "a"), ("y", "b")], label_names=("b", "unused", "a"))
        assert splits.label_names == ("b", "unused", "a")
        assert splits.examples["train"].labels.tolist() == [2, 0]

    def test_one_class_is_enough_where_label_names_are_given(self, load):
        assert load([("x", "a")], label_names=("a", "b")).examples["train"].labels.tolist() == [0]

    def test_unknown_label_against_given_label_names(self, load):
        with pytest.raises(InputError, match="label of the train split is unknown, .*expected a or c, got 'b'"):
            load([("x", "a"), ("y", "b")], label_names=("a", "c"))


def test_source_is_the_pinned_one(tmp_path, write_table, monkeypatch):
    write_table(tmp_path / "test.csv", [("x", "a"), ("y", "b")])
    monkeypatch.chdir(tmp_path)
    assert sources.load("test.csv").source == sources.pinned("test.csv") == str(tmp_path / "test.csv")
    assert sources.pinned("reviews") == "reviews"


@pytest.mark.parametrize("source", ["review", "hub", "owner/name", ""])
def test_no_such_data(source):
    expected = (
        "no such data, in data.source, expected reviews, product_reviews, imdb, hub:OWNER/NAME, tfds:NAME, a file, "
        ".* a folder, got"
    )
    for function in (sources.load, sources.pinned):
        with pytest.raises(InputError, match=expected):
            function(source)


def test_no_catalog_is_imported_for_files(tmp_path, write_table):
    """And once the rows are on disk nothing heavier than pyarrow is: a second start takes no second."""
    write_table(tmp_path / "test.csv", [("x", "a"), ("y", "b")])
    heavy = "{'datasets', 'huggingface_hub', 'tensorflow', 'tensorflow_datasets', 'pandas', 'keras'}"
    code = (
        "import sys; from tf_finetune.data import sources; print(list(sources.load(sys.argv[1]).examples['test'].texts)"
    )
    code += f", sorted({heavy} & set(sys.modules)))"
    command = [sys.executable, "-c", code, str(tmp_path / "test.csv")]
    first, second = (subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(2))
    assert "tensorflow" not in first
    assert second.strip() == "['x', 'y'] []"

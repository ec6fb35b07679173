"""Every kind of finding by its rows, and that the rows are split as training splits them."""

import json

import pytest

from tf_finetune.checks import data_report, findings
from tf_finetune.checks.row_checks import RowChecks
from tf_finetune.checks.seen_rows import Places
from tf_finetune.config import ProblemType
from tf_finetune.data import sources
from tf_finetune.errors import InputError
from tf_finetune.readers import files, reviews
from tf_finetune.readers.rows import Columns, Row

WORDS = ["printer", "invoice", "router", "password", "screen", "battery", "keyboard", "license", "backup", "monitor"]
# Lines that have nothing wrong with them, and no two alike.
CLEAN = [f"the {WORDS[i % 10]} of desk {i} has failed again,{'ab'[i // 10 % 2]}" for i in range(60)]


@pytest.fixture
def report(tmp_path):
    """Checks a folder with one csv file a split; "FILE line N" is the place of a row."""

    def report(columns=None, max_length=64, **splits):
        options = {key: splits.pop(key) for key in ("problem_type",) if key in splits}
        for name, lines in splits.items():
            content = lines if isinstance(lines, bytes) else ("\n".join(["text,label", *lines]) + "\n").encode()
            (tmp_path / f"{name}.csv").write_bytes(content)
        found = files.read(str(tmp_path), columns or Columns(), whole_file=False)
        count_tokens = lambda texts, pairs: [len(text.split()) + 2 for text in texts]  # noqa: E731
        result = data_report.check(found, source="here", count_tokens=count_tokens, max_length=max_length, **options)
        return result, {
            finding.kind: [row.where.replace(f"{tmp_path}/", "") for row in finding.rows] for finding in result.findings
        }

    return report


def test_nothing_is_found_in_a_clean_file(report):
    result, found = report(train=CLEAN, test=["another text about the scanner,a", "and one about the mouse,b"])
    assert found == {}
    assert (result.errors, result.warnings) == (0, 0)


def of_one_line(line):
    return [*CLEAN[:40], line, *CLEAN[40:]]


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        ("blank_text", '" ",a'),
        ("blank_text", ",a"),
        ("mojibake", "the cafÃ© was closed,a"),
        ("mojibake", "it wasnâ€™t there,a"),
        ("mojibake", "Ð¿Ñ€Ð¸Ð²ÐµÑ‚ from here,a"),
        ("mojibake", "a smile ðŸ˜€ for you,a"),
        ("replacement_character", "the caf\ufffd was closed,a"),
        ("control_character", "the \x00 was closed,a"),
        ("control_character", "the \x1b[1m was closed,a"),
        ("html_markup", "the printer<br />was closed,a"),
        ("html_markup", "<p class=x>the door was closed</p>,a"),
        ("html_markup", "this &amp; that,a"),
        ("no_words", "2026,a"),
        ("no_words", '"1,200.50",a'),
        ("no_words", "https://example.com/a?b=c,a"),
        ("text_is_label", " A ,a"),
    ],
)
def test_what_one_text_shows(report, kind, line):
    _, found = report(train=of_one_line(line))
    assert found[kind] == ["train.csv line 42"]


@pytest.mark.parametrize(
    "line",
    ["they said «CAFÉ» and é» was gone,a", "«HYVÄ» and AMANHÃ… and SMÅ”,a", "a < b and c > d in R&D & more,a",
     '"two\nlines\tand a tab",a', "née Müller 😀 à 5 €,a",
     "привет из дома,a", "see https://example.com for 3 more,a", "x <3 y,a"],
)  # fmt: skip
def test_what_is_nothing(report, line):
    assert report(train=of_one_line(line))[1] == {}


def test_copies_leaks_and_conflicts_name_what_they_repeat(report):
    train = [
        *CLEAN,
        "one and the same,a",
        "one and the same,a",
        "One - and the SAME!,a",
        "this or that,a",
        "this or that,b",
    ]
    result, found = report(
        train=train,
        validation=["one and the same,a", "a text of its own,b"],
        test=["this... or that,a", "a text of its own,b", "or another one,a"],
    )
    assert found["duplicate_text"] == ["train.csv line 63", "train.csv line 66"]
    assert found["duplicate_normalised_text"] == ["train.csv line 64"]
    assert found["conflicting_labels"] == ["train.csv line 65", "train.csv line 66"]
    assert found["conflicting_normalised_labels"] == ["train.csv line 65", "train.csv line 66", "test.csv line 2"]
    assert found["leaked_text"] == ["validation.csv line 2", "test.csv line 3"]
    assert found["leaked_normalised_text"] == ["test.csv line 2"]
    assert set(found) == {
        f"{kind}_{form}" for kind in ("duplicate", "leaked") for form in ("text", "normalised_text")
    } | {"conflicting_labels", "conflicting_normalised_labels"}
    by_kind = {finding.kind: finding for finding in result.findings}
    likes = [row.like.rpartition("/")[2] for row in by_kind["leaked_text"].rows]
    assert likes == ["train.csv line 62", "validation.csv line 3"]
    assert [row.got for row in by_kind["conflicting_labels"].rows] == ["a", "b"]
    assert [row.split for row in by_kind["leaked_text"].rows] == ["validation", "test"]


def test_blank_texts_are_no_copies_of_each_other(report):
    _, found = report(train=[*CLEAN, ",a", ",b"])
    assert found == {"blank_text": ["train.csv line 62", "train.csv line 63"]}


def test_texts_of_signs_alone_are_no_copies_of_each_other(report):
    assert report(train=[*CLEAN, "?!,a", "...,b"])[1].get("conflicting_normalised_labels") is None


def test_pairs_repeat_only_together(report):
    rows = [f"{line},x" for line in CLEAN] + ["one,a,first", "one,a,second", "one,a,first"]
    _, found = report(Columns(text_pair="pair"), train="\n".join(["text,label,pair", *rows]).encode())
    assert found["duplicate_text"] == ["train.csv line 64"]


def test_rare_and_similar_labels(report):
    _, found = report(train=[*CLEAN, "a text of its own,A", "a last text,c"])
    assert found == {"similar_labels": ["train.csv line 62"], "rare_label": ["train.csv line 63"]}


def test_extreme_lengths(report):
    _, found = report(train=[*CLEAN, "no,a", f"{'very ' * 100}long,b"], max_length=50)
    assert found["extreme_length"] == ["train.csv line 62", "train.csv line 63"]
    assert found["truncated"] == ["train.csv line 63"]


class TestErrors:
    """What training refuses."""

    def test_rows_that_cannot_be_used(self, report):
        content = "\n".join(["text,label", *CLEAN]).encode() + b'\none,two,a\ncaf\xe9,b\nnothing,\n"never closed,b\n'
        result, _ = report(train=content)
        assert {finding.kind for finding in result.findings} == {"unreadable_row"}
        said = {row.where.rpartition(" ")[2]: finding.sentence for finding in result.findings for row in finding.rows}
        assert said == {
            "62": "1 row cannot be used: wrong number of columns, expected 2, got 3",
            "63": "1 row cannot be used: text is not UTF-8, got byte 0xe9",
            "64": "1 row cannot be used: a label is missing, expected a label, or [] for none of several",
            "65": "1 row cannot be used: a quote is not closed, expected a closing \", got the file's end",
        }
        assert result.errors == 4

    def test_a_label_only_outside_train(self, report):
        result, found = report(train=CLEAN, test=["a text of its own,c", "another one,c"])
        assert found["unknown_label"] == ["test.csv line 2"]
        assert result.errors == 1

    @pytest.mark.parametrize(
        ("kind", "splits"),
        [
            ("one_class", {"train": ["one,a", "two,a"], "validation": ["three,a"]}),
            ("empty_split", {"train": CLEAN, "test": []}),
            ("fractional_labels", {"train": [line[:-1] + f"{i % 3 / 2}" for i, line in enumerate(CLEAN)]}),
        ],
    )
    def test_of_a_whole_split(self, report, kind, splits, tmp_path):
        result, found = report(**splits)
        assert kind in found
        assert result.errors == 1
        with pytest.raises(InputError, match=r"only one class|split is empty|fractional numbers"):
            sources.load(str(tmp_path))

    def test_regression(self, report):
        lines = [line[:-1] + f"{i / 7:.3f}" for i, line in enumerate(CLEAN)]
        result, found = report(train=[*lines, "a text of its own,high"], problem_type=ProblemType.REGRESSION)
        assert found == {"not_a_number": ["train.csv line 62"]}
        assert result.splits["train"].labels["max"] == pytest.approx(59 / 7, abs=0.001)


class TestLists:
    def test_of_a_csv_cell(self, report):
        lines = [line[:-1] + ('"[""x"", ""y""]"' if i % 2 else "[]") for i, line in enumerate(CLEAN)]
        result, found = report(
            train=lines, test=['a text of its own,"[""y"",""x""]"'], problem_type=ProblemType.MULTI_LABEL_CLASSIFICATION
        )
        assert found == {}
        assert result.splits["test"].labels == {"x": 1, "y": 1}
        counts = [result.splits[split].labels for split in ("train", "validation")]
        assert sum(of_split.get("no class", 0) for of_split in counts) == 30

    def test_lists_and_names(self, tmp_path):
        lines = [{"text": f"text {i}", "label": ["a"] if i else "b"} for i in range(30)]
        (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, lines)))
        found = files.read(str(tmp_path), Columns(), whole_file=False)
        result = data_report.check(found, source="", count_tokens=lambda texts, pairs: [3] * len(texts), max_length=9)
        assert "mixed_labels" in {finding.kind for finding in result.findings}


def test_lengths(report):
    lines = [f"{'word ' * i}{i},{'ab'[i % 2]}" for i in range(1, 101)]
    result, _ = report(test=lines, max_length=100)
    assert result.splits["test"].tokens == {"median": 53, "p90": 93, "p99": 102, "max": 103}
    assert result.splits["test"].truncated == 0.03
    assert result.max_length_for_99_percent == 102


ROWS = [(f"text number {i}", "ab"[i % 2]) for i in range(200)]


@pytest.mark.parametrize("names", [("all",), ("train", "test"), ("train", "validation"), ("test",)])
@pytest.mark.parametrize("options", [{}, {"max_examples": 50, "seed": 3}, {"validation_examples": 30},
                                     {"max_examples": 60, "validation_examples": 20}])  # fmt: skip
def test_rows_are_split_as_training_splits_them(tmp_path, write_table, names, options):
    for name in names:
        write_table(tmp_path / f"{name}.csv", [(f"{name} {text}", label) for text, label in ROWS + ROWS[:20]])
    source = str(tmp_path / f"{names[0]}.csv") if len(names) == 1 else str(tmp_path)
    found = files.read(source, Columns(), whole_file=False)
    try:
        expected = {split: len(examples) for split, examples in sources.load(source, **options).examples.items()}
    except InputError:
        with pytest.raises(InputError, match="the validation split of .* is fixed already"):
            data_report.check(found, source=source, count_tokens=None, max_length=9, **options)
        return
    seen = {}

    def count_tokens(texts, pairs):
        seen.setdefault("texts", []).extend(texts)
        return [3] * len(texts)

    result = data_report.check(found, source=source, count_tokens=count_tokens, max_length=9, **options)
    assert {split: of_split.examples for split, of_split in result.splits.items()} == expected
    trained = [text for examples in sources.load(source, **options).examples.values() for text in examples.texts]
    assert sorted(seen["texts"]) == sorted(trained)


def test_the_cheap_half_in_a_few_lines():
    told = RowChecks()
    for number, line in enumerate(CLEAN):
        told.add("train", Row(*line.split(","), where=f"a.csv line {number + 2}"))
    assert findings.brief(told.findings(most_rows=1)) == []
    for number in range(3):
        told.add("train", Row("", "a", where=f"a.csv line {number + 90}"))
        told.add("test", Row(CLEAN[number].split(",")[0], "bA"[number % 2], where=f"b.csv line {number + 2}"))
    told.add("train", Row("it wasnâ€™t\ufffd\x00", "q", where="a.csv line 99"))
    said = findings.brief(told.findings(most_rows=1))
    assert len(said) == 6
    assert said[0] == "the data has 8 things to look at; `tf-finetune check-data` shows all rows:"
    assert said[1] == "  6 rows of 3 texts with several labels, first in a.csv line 2"
    assert said[-1].startswith("  and 4 more: ")


def test_places_are_kept_in_eight_bytes_and_come_back_whole():
    places, kept = (
        ["a b.csv line 3", "a b.csv line 4", "train/pos/1.txt", "x 007", "line 12345678901", "x", "x 0"],
        Places(),
    )
    for place in places:
        kept.append(place)
    assert [kept[index] for index in range(len(places))] == places


def test_the_packaged_reviews():
    """Real text: entities are left in it, and its reader has dropped the copies that its file has."""
    found = sources.find("reviews", Columns())
    result = data_report.check(
        found, source="reviews", count_tokens=lambda texts, pairs: [9] * len(texts), max_length=128
    )
    assert {finding.kind: finding.count for finding in result.findings} == {"html_markup": 22, "extreme_length": 8}
    assert {name: split.examples for name, split in result.splits.items()} == {
        "train": 8433, "validation": 1038, "test": 1095,
    }  # fmt: skip
    texts = {row.where: row.text for row in reviews.packaged_reviews()(None)}
    assert all("&" in texts[row.where] for row in result.findings[0].rows)
    assert {texts[row.where] for row in result.findings[1].rows} >= {"Eh.", "Obvious."}

"""`tf-finetune check-data` through the real command line, on files with faults that were planted by hand."""

import json
import os
import re
import subprocess
import sys

import pytest

import tf_finetune
from tf_finetune import cli
from tf_finetune.commands import inputs
from tf_finetune.config import ProblemType
from tf_finetune.errors import InputError
from tf_finetune.readers import text_hash

WORDS = ["printer", "invoice", "router", "password", "screen", "battery", "keyboard", "license", "backup", "monitor"]
CLEAN = [f"the {WORDS[i % 10]} of desk {i} has failed again,{'technical' if i % 3 else 'billing'}" for i in range(60)]

# What is planted below line 61 of train.csv, and what it is to be found as. None: only what a later line repeats.
PLANTED = [
    (b",billing", "blank_text"),
    (b"the invoice was wrong,billing", None),
    (b"the invoice was wrong,billing", "duplicate_text"),
    ("The invoice — was WRONG!,billing".encode(), "duplicate_normalised_text"),
    (b"my card was charged twice,billing", "conflicting_labels"),
    (b"my card was charged twice,technical", "conflicting_labels"),
    ("the cafÃ© has no network,technical".encode(), "mojibake"),
    ("the caf\ufffd has no power,technical".encode(), "replacement_character"),
    (b"the screen went \x07 dark,technical", "control_character"),
    (b"the door<br />is stuck,technical", "html_markup"),
    (b"https://example.com/ticket/17,technical", "no_words"),
    (b"Billing,billing", "text_is_label"),
    (b"the lift is stuck again,Technical", "similar_labels"),
    (b"the roof is leaking again,building", "rare_label"),
    (b"why " * 400 + b"me,technical", "extreme_length"),
    (b"one, two, three,technical", "unreadable_row"),
    (b"the caf\xe9 is closed,billing", "unreadable_row"),
    (b"no label at all,", "unreadable_row"),
    (b'"the quote is never closed,billing', "unreadable_row"),
]
FIRST = len(CLEAN) + 2
TEST = ["the heating of room 4 is cold,billing", "the invoice was wrong,billing",
        "THE HEATING is off,technical", "the printer of desk 0 (has failed) again,billing"]  # fmt: skip


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clean").mkdir()
    (tmp_path / "clean" / "train.csv").write_text("\n".join(["text,label", *CLEAN]) + "\n")
    (tmp_path / "clean" / "test.csv").write_text("text,label\nthe heating of room 4 is cold,billing\n")
    (tmp_path / "bad").mkdir()
    lines = [b"text,label", *(line.encode() for line in CLEAN), *(line for line, _ in PLANTED)]
    (tmp_path / "bad" / "train.csv").write_bytes(b"\n".join(lines) + b"\n")
    (tmp_path / "bad" / "test.csv").write_text("\n".join(["text,label", *TEST, "who are you,nobody"]) + "\n")
    return tmp_path


def check(source, *arguments, checkpoint):
    flags = [f"--config=my_data:{source}", f"--config.model.checkpoint={checkpoint}", "--config.data.max_length=40"]
    return cli.main(["tf-finetune", "check-data", *flags, *arguments])


def test_every_planted_fault_is_found_by_its_row(folder, tiny_checkpoint, capsys):
    assert check("bad", "--json=report.json", checkpoint=tiny_checkpoint) == 2
    captured = capsys.readouterr()
    report = json.loads((folder / "report.json").read_text())
    found = {}
    for finding in report["findings"]:
        found.setdefault(finding["kind"], []).extend(row["where"] for row in finding["rows"])
    expected = {
        "unknown_label": ["bad/test.csv line 6"],
        "leaked_text": ["bad/test.csv line 3"],
        "leaked_normalised_text": ["bad/test.csv line 5"],
        "rare_label": ["bad/test.csv line 6"],
        "truncated": [f"bad/train.csv line {FIRST + 14}"],
        "duplicate_text": [f"bad/train.csv line {FIRST + 5}"],  # beside the planted one: copies may differ in label
    }
    for number, (_, kind) in enumerate(PLANTED, FIRST):
        if kind:
            expected.setdefault(kind, []).append(f"bad/train.csv line {number}")
    assert {kind: sorted(rows) for kind, rows in found.items()} == {k: sorted(rows) for k, rows in expected.items()}
    for kind in expected:
        assert re.search(rf"^(error  |warning|note   )  {kind}: ", captured.out, flags=re.MULTILINE)
    assert captured.err == "error: the data is not clean, in bad, expected no findings, got 5 errors\n"
    severities = re.findall(r"^(error|warning|note) ", captured.out, flags=re.MULTILINE)
    assert severities == sorted(severities, key=("error", "warning", "note").index)


def test_a_clean_file_is_clean(folder, tiny_checkpoint, capsys):
    assert check("clean", "--strict", "--json", "report.json", checkpoint=tiny_checkpoint) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "data: clean"
    assert re.fullmatch(r"split +examples +tokens: median +90% +99% +max   longer than 40", printed[1])
    assert re.fullmatch(r"train +\d+ +10 +10 +10 +10 +0.0%", printed[2])
    assert printed[-1] == "nothing found"
    report = json.loads((folder / "report.json").read_text())
    assert set(report) == {
        "source", "problem_type", "max_length", "max_length_for_99_percent", "splits", "notes", "errors", "warnings",
        "findings",
    }  # fmt: skip
    assert report["findings"] == []
    assert set(report["splits"]) == {"train", "validation", "test"}
    assert set(report["splits"]["train"]) == {"examples", "labels", "tokens", "truncated"}


def test_warnings_fail_under_strict_only(folder, tiny_checkpoint, capsys):
    with (folder / "clean" / "train.csv").open("a") as file:
        file.write(CLEAN[0] + "\n")
    assert check("clean", checkpoint=tiny_checkpoint) == 0
    assert "warning  duplicate_text: 1 row with a text that is in the same split already" in capsys.readouterr().out
    assert check("clean", "--strict", checkpoint=tiny_checkpoint) == 2
    assert capsys.readouterr().err == "error: the data is not clean, in clean, expected no findings, got 1 warning\n"


def test_the_function_returns_what_json_holds(folder, tiny_checkpoint, capsys):
    config = tf_finetune.ExperimentConfig()
    config.data.source, config.data.max_length, config.model.checkpoint = "bad", 40, str(tiny_checkpoint)
    report = tf_finetune.check_data(config)
    assert capsys.readouterr().out == ""
    check("bad", "--json=report.json", checkpoint=tiny_checkpoint)
    assert json.loads((folder / "report.json").read_text()) == json.loads(json.dumps(report))


def test_pairs_and_numbers(folder, tiny_checkpoint, capsys):
    rows = [f"{WORDS[i % 10]} {i},the film is good,{i / 7:.2f}" for i in range(60)]
    (folder / "train.csv").write_text("\n".join(["a,b,score", *rows]))
    flags = ["text_column=a", "text_pair_column=b", "label_column=score"]
    flags = [f"--config.data.{flag}" for flag in flags] + ["--config.model.problem_type=regression", "--strict"]
    assert check("train.csv", *flags, checkpoint=tiny_checkpoint) == 0
    printed = capsys.readouterr().out
    assert re.search(r"^train +\d+ +9 ", printed, flags=re.MULTILINE)
    assert re.search(r"^mean +4\.\d+ ", printed, flags=re.MULTILINE)


def test_a_label_cannot_steer_the_terminal(folder, tiny_checkpoint, capsys):
    (folder / "train.csv").write_text("\n".join(["text,label", *CLEAN, "a text of its own,\x1b[2Jred"]))
    check("train.csv", checkpoint=tiny_checkpoint)
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert "\\x1b[2Jred" in printed


def test_a_terminal_of_another_encoding(folder, tiny_checkpoint):
    (folder / "train.csv").write_text("\n".join(["text,label", *CLEAN, "a text of its own,техника"]), encoding="utf-8")
    command = [sys.executable, "-m", "tf_finetune", "check-data", "--config=my_data:train.csv"]
    command += [f"--config.model.checkpoint={tiny_checkpoint}"]
    result = subprocess.run(command, capture_output=True, env=os.environ | {"PYTHONIOENCODING": "latin-1"})
    assert b"\\u0442\\u0435\\u0445" in result.stdout


def test_training_says_what_is_wrong_on_a_terminal_of_another_encoding(folder):
    rows = [f"{line[:-1]}{'é' if i % 2 else 'É'}" for i, line in enumerate(CLEAN)]
    (folder / "train.csv").write_text("\n".join(["text,label", *rows]), encoding="utf-8")
    code = (
        "from tf_finetune import ExperimentConfig; from tf_finetune.commands import inputs;"
        "config = ExperimentConfig();"
        "config.data.source, config.model.checkpoint = 'train.csv', 'random-tiny';"
        "inputs.gather(config)"
    )
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment, check=True)
    assert rb"\xe9" in result.stdout


def test_random_tiny_has_a_tokenizer_too(folder, capsys):
    assert check("clean", checkpoint="random-tiny") == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to check, expected --config=NAME_OR_FILE, such as --config=my_data:FILE"),
        (["--config=smoke", "--workdir=run"], "check-data takes no --workdir, expected --config=NAME_OR_FILE, got run"),
        (["--config=smoke", "--restart"], "--restart is a flag of train and cross-validate, got check-data"),
        (["--config=smoke", "--json=no/where.json"], "no folder for the report, in --json, .* got no/where.json"),
        (["--config=my_data:absent.csv"], "no such data, in data.source, .* got absent.csv"),
        (["--config=my_data:clean", "--config.data.text_column=body"], "no such column, in clean/train.csv, .*'body'"),
        (
            ["--config=my_data:clean", "--config.model.checkpoint=none"],
            "model.checkpoint is no folder here, .*none",
        ),
        (["--config=my_data:clean", "text"], "check-data takes flags only, got 'text'"),
    ],
)
def test_wrong_input_gets_one_line(folder, capsys, arguments, message):
    assert cli.main(["tf-finetune", "check-data", *arguments]) == 2
    [error] = capsys.readouterr().err.strip().splitlines()
    assert re.search(f"^error: {message}", error)
    assert not os.path.exists("run")


def test_its_flags_are_refused_elsewhere(capsys):
    for flag, owners in (("--strict", "check-data"), ("--json=a", "check-data, compare and drift")):
        assert cli.main(["tf-finetune", "train", "--config=smoke", "--workdir=run", flag]) == 2
        name = flag.partition("=")[0]
        assert f"error: {name} is a flag of {owners}, got train" in capsys.readouterr().err


def test_no_tensorflow_is_imported(folder, tiny_checkpoint):
    """Nor, where a file is faulty as a whole, the library of the tokenizer."""
    code = (
        "import sys; from tf_finetune.cli import main; status = main(['tf-finetune', 'check-data', *sys.argv[1:]]);"
        "print(status, sorted({'tensorflow', 'keras', 'transformers', 'datasets'} & set(sys.modules)))"
    )

    def last_line(*arguments):
        result = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
        return result.stdout.splitlines()[-1]

    assert last_line("--config=my_data:clean", "--config.data.label_column=stars") == "2 []"
    assert last_line("--config=my_data:clean", f"--config.model.checkpoint={tiny_checkpoint}") == "0 ['transformers']"


AUTO, SINGLE, MULTI, REGRESSION = ProblemType
TWO, LISTS = ["a", "b"], [["a"], ["b"]]
# The kind of the error, or None where training goes ahead; what a label is; and the labels of each split.
LABELS = [
    (None, AUTO, {"train": TWO, "validation": TWO}),
    ("mixed_labels", AUTO, {"train": ["a", ["b"]], "validation": ["a"]}),
    ("one_class", AUTO, {"train": ["a", "a"], "validation": ["a"]}),
    ("unknown_label", AUTO, {"train": TWO, "validation": ["c"]}),
    ("malformed_labels", MULTI, {"train": ["[a", "b", "[]"], "validation": ["b"]}),
    ("malformed_labels", MULTI, {"train": ['[["a"],"b"]', "b"], "validation": ["b"]}),
    ("malformed_labels", MULTI, {"train": ['["a", null]', "b"], "validation": ["b"]}),
    ("malformed_labels", MULTI, {"train": TWO, "validation": ['[{"a": 1}]']}),
    (None, MULTI, {"train": ['["a"]', "a, b", "[]", ","], "validation": ["b"]}),
    (None, AUTO, {"train": ["[a", "b"], "validation": ["b"]}),
    ("unreadable_row", AUTO, {"train": [["a", ["b"]], ["b"]], "validation": [["b"]]}),
    ("unreadable_row", MULTI, {"train": ["a", "b", ""], "validation": ["b"]}),
    ("list_label", SINGLE, {"train": LISTS, "validation": LISTS}),
    ("list_label", SINGLE, {"train": TWO, "validation": LISTS}),
    (None, SINGLE, {"train": ["0.5", "1.5"], "validation": ["0.5"]}),
    ("fractional_labels", AUTO, {"train": ["0.5", "1.5"], "validation": ["0.5"]}),
    ("fractional_labels", AUTO, {"train": [["0.5"], ["1"]], "validation": [["1"]]}),
    ("fractional_labels", MULTI, {"train": ["0.5", "1"], "validation": ["1"]}),
    (None, AUTO, {"train": ["+0.5", "1e9999", "0_1.5"], "validation": ["+0.5"]}),
    (None, AUTO, {"train": ["1.0", "2"], "validation": ["2"]}),
    ("no_class", MULTI, {"train": ["[]", ","], "validation": ["a"]}),
    ("no_class", AUTO, {"train": [[], []], "validation": [[]]}),
    (None, MULTI, {"train": ["a", "[]"], "validation": ["[]"]}),
    ("no_train_split", AUTO, {"test": TWO}),
    ("no_train_split", AUTO, {"validation": TWO, "test": TWO}),
    ("empty_split", AUTO, {"train": TWO, "validation": []}),
    (None, REGRESSION, {"train": ["0.5", "3.4e38"], "validation": ["3.40282356e38"]}),
    ("not_a_number", REGRESSION, {"train": ["0.5", "1e39"], "validation": ["1"]}),
    ("not_a_number", REGRESSION, {"train": ["0.5", "3.4028236e38"], "validation": ["1"]}),
    ("not_a_number", REGRESSION, {"train": ["0.5", "1"], "validation": [["1"]]}),
]  # fmt: skip


@pytest.fixture
def refuses(tmp_path, monkeypatch):
    """Whether training refuses the folder, and the kinds of the errors that check-data finds."""
    monkeypatch.chdir(tmp_path)

    def refuses(**settings):
        config = tf_finetune.ExperimentConfig()
        config.data.source, config.model.checkpoint = str(tmp_path / "data"), inputs.RANDOM_TINY
        config.model.problem_type = settings.pop("problem_type", AUTO)
        for name, value in settings.items():
            setattr(config.data, name, value)
        kinds = {f["kind"] for f in tf_finetune.check_data(config)["findings"] if f["severity"] == "error"}
        try:
            inputs.gather(config)
        except InputError:
            return True, kinds
        return False, kinds

    return refuses


def write_split(folder, name, texts, rows):
    folder.mkdir(exist_ok=True)
    lines = [json.dumps({"text": text, **row}) + "\n" for text, row in zip(texts, rows, strict=True)]
    (folder / f"{name}.jsonl").write_text("".join(lines or ["\n"]))


@pytest.mark.parametrize(("kind", "problem_type", "splits"), LABELS)
def test_training_refuses_labels_where_an_error_is_found(tmp_path, refuses, kind, problem_type, splits):
    for split, labels in splits.items():
        texts = [f"{split} is number {number}" for number in range(len(labels))]
        write_split(tmp_path / "data", split, texts, [{"label": label} for label in labels])
    if [] in splits.values():
        (tmp_path / "data" / "validation.jsonl").unlink()
        (tmp_path / "data" / "validation.csv").write_text("text,label\n")
    assert refuses(problem_type=problem_type) == (kind is not None, {kind} - {None})


IN_VALIDATION = [text for text in CLEAN if text_hash.tenth_of(text_hash.sha256_of(text)) == 1]
IN_TRAIN = [text for text in CLEAN if text not in IN_VALIDATION]


@pytest.mark.parametrize(
    ("is_refused", "texts", "options"),
    [
        (False, IN_TRAIN[:8] + IN_VALIDATION[:2], {}),
        (True, IN_TRAIN[:10], {}),
        (False, IN_TRAIN[:10], {"validation_examples": 1}),
        (False, IN_TRAIN[:10], {"max_examples": 9}),
        (True, IN_TRAIN[:1] * 10, {"validation_examples": 1}),
        (True, IN_VALIDATION[:2], {}),
    ],
)
def test_training_refuses_a_split_that_is_empty_once_validation_is_taken_out(
    tmp_path, refuses, is_refused, texts, options
):
    write_split(tmp_path / "data", "train", texts, [{"label": "ab"[i % 2]} for i in range(len(texts))])
    assert refuses(**options) == (is_refused, {"empty_split"} if is_refused else set())


@pytest.mark.parametrize("weight", [1, 1e39])
def test_training_refuses_a_weight_where_an_error_is_found(tmp_path, refuses, weight):
    for split in ("train", "validation"):
        write_split(tmp_path / "data", split, [f"{split} {i}" for i in range(3)],
                    [{"label": label, "weight": weight if label == "c" else 0} for label in "abc"])  # fmt: skip
    expected = (True, {"unreadable_row"}) if weight > 1 else (False, set())
    assert refuses(weight_column="weight") == expected


def test_only_what_is_printed_is_listed(folder, tiny_checkpoint, monkeypatch, capsys):
    """A row that is listed takes six times the memory of one that is not."""
    from tf_finetune.checks import data_report

    reports, check_all = [], data_report.check
    monkeypatch.setattr(
        data_report, "check", lambda *a, **options: reports.append(check_all(*a, **options)) or reports[-1]
    )
    flags = ["--config.data.max_length=5", "--config.model.problem_type=regression"]
    for more in ([], ["--json=report.json"]):
        assert check("clean", *flags, *more, checkpoint=tiny_checkpoint) == 2
    short, whole = ({f.kind: f for f in report.findings} for report in reports)
    for kind in ("truncated", "not_a_number"):
        assert short[kind].count == whole[kind].count == len(whole[kind].rows) > 4
        assert short[kind].rows == whole[kind].rows[:4]
    printed = capsys.readouterr().out
    assert printed[: len(printed) // 2] * 2 == printed

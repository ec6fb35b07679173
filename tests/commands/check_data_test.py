"""`tf-finetune check-data` through the real command line, on files with faults that were planted by hand."""

import json
import os
import re
import subprocess
import sys

import pytest

import tf_finetune
from tf_finetune import cli

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


def test_random_tiny_has_a_tokenizer_too(folder, capsys):
    assert check("clean", checkpoint="random-tiny") == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to check, expected --config=NAME_OR_FILE, such as --config=my_data:FILE"),
        (["--config=smoke", "--workdir=run"], "check-data takes no --workdir, expected --config=NAME_OR_FILE, got run"),
        (["--config=smoke", "--restart"], "--restart is a flag of train, got check-data"),
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
    for flag in ("--strict", "--json=a"):
        assert cli.main(["tf-finetune", "train", "--config=smoke", "--workdir=run", flag]) == 2
        name = flag.partition("=")[0]
        assert f"error: {name} is a flag of check-data, got train" in capsys.readouterr().err


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

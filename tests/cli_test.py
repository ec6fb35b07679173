"""Wrong input on the command line: one line, status 2, no traceback, nothing left behind."""

import os
import re
import subprocess
import sys
import time

import pytest

from tf_finetune import cli

TABLE = "text,label\n" + "\n".join(f"text {index},{'yes' if index % 2 else 'no'}" for index in range(60)) + "\n"


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(name, content):
    with open(name, "w", encoding="utf-8") as file:
        file.write(content)
    return name


TRAIN = ["train", "--workdir=run"]
MINE = [*TRAIN, "--config=my_data:mine.csv"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workdir=run"], "no command, expected tf-finetune followed by train or .*, got --workdir=run"),
        (["evaluate", "--workdir", "run"], "no trained model, in run"),
        (
            ["predict", "--workdir=run", "--config=reviews_minilm", "--input=no.txt"],
            "no such file, in --input, .* no.txt",
        ),
        ([], "no command, expected tf-finetune followed by train or evaluate or predict or export or verify"),
        (["trian"], "no such command, expected one of train, .*; the nearest is train, got trian"),
        (["train"], "no working directory, expected --workdir=DIR"),
        (TRAIN, "nothing to train, expected --config=NAME_OR_FILE"),
        ([*TRAIN, "--config=reviews_minil"], "no such config file, in --config, expected .* got reviews_minil"),
        ([*TRAIN, "--config=broken.py"], "the config file failed, in broken.py line 2, .*, got SyntaxError"),
        ([*MINE, "--config.train.epoch=2"], "no config field train.epoch, .*, expected one like train.epochs"),
        ([*MINE, "--config.train.epochs=two"], "flag --config.train.epochs=two: invalid literal for int"),
        ([*MINE, "--config.train.epochs=0"], "wrong value for train.epochs, expected 1 or more, got 0"),
        (
            [*MINE, "--config.optimizer.learning_rate=-1"],
            "wrong value for optimizer.learning_rate, expected more than 0",
        ),
        ([*MINE, "--config.runtime.precision=half"], "--config.runtime.precision=half"),
        (
            [*MINE, "--config.data.text_column=body"],
            "no such column, in .*mine.csv, expected a column 'body', got text, label",
        ),
        ([*MINE, "--config.data.max_length=1000"], "longer than the checkpoint's positions, .* expected at most 512"),
        ([*MINE, "--config.optimizer.warmup_steps=1000"], "the warmup is longer than the training"),
        ([*TRAIN, "--config=my_data:other.csv"], "no such data, in data.source, expected .*, got other.csv"),
        ([*MINE, "--config.model.checkpoint=nowhere"], "no such checkpoint, in model.checkpoint, .* got nowhere"),
        ([*MINE, "--config.model.checkpoint=empty"], "checkpoint has no config.json, in empty, expected a folder in"),
        ([*MINE, "--confg=x"], "Unknown command line flag 'confg'. Did you mean: config"),
        ([*MINE, "--input=x"], "--input is a flag of predict, got train"),
        ([*MINE, "text"], "train takes flags only, got 'text'"),
        (["evaluate", "--workdir=run"], "no trained model, in run, expected a workdir that `tf-finetune train` filled"),
        (
            ["evaluate", "--workdir=run", "--config=reviews_minilm", "--restart"],
            "--restart is a flag of train, got eval",
        ),
        ([*MINE, "--config.data=x"], "data is a section of the config, .*, expected one of data.source"),
        ([*MINE, "--config.model.checkpoint="], "no such checkpoint, in model.checkpoint"),
        (["predict", "--workdir=run", "text"], "no trained model, in run"),
        (
            ["predict", "--workdir=run", "--config=reviews_minilm", "--config.data.text_column=body", "text"],
            "data.text_column is a column of --input, expected --input=FILE.csv or .tsv",
        ),
    ],
)
def test_wrong_input_gets_one_line(arguments, message, capsys, packaged_checkpoint):
    write("mine.csv", TABLE)
    write("broken.py", "def get_config():\n    return (\n")
    os.mkdir("empty")
    status = cli.main(["tf-finetune", *arguments])
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert status == 2
    assert error.startswith("error: ")
    assert re.search(message, error)
    assert not os.path.exists("run")


def test_legacy_keras_is_named(monkeypatch, capsys):
    monkeypatch.setenv("TF_USE_LEGACY_KERAS", "1")
    write("mine.csv", TABLE)
    assert cli.main(["tf-finetune", *MINE]) == 2
    assert "expected TF_USE_LEGACY_KERAS unset, got TF_USE_LEGACY_KERAS=1" in capsys.readouterr().err


def test_another_backend_is_refused(monkeypatch, capsys):
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    write("mine.csv", TABLE)
    assert cli.main(["tf-finetune", *MINE]) == 2
    assert "expected KERAS_BACKEND=tensorflow or unset, got KERAS_BACKEND=torch" in capsys.readouterr().err


def test_a_file_in_the_place_of_the_workdir(capsys, packaged_checkpoint):
    write("mine.csv", TABLE)
    write("run", "")
    assert cli.main(["tf-finetune", *MINE]) == 2
    assert "cannot write the working directory, in run, got run is not writable" in capsys.readouterr().err


def test_help_names_commands_flags_and_configs(capsys):
    assert cli.main(["tf-finetune", "--help"]) == 0
    printed = capsys.readouterr().out
    for word in ("train", "evaluate", "predict", "export", "verify", "--workdir", "reviews_minilm", "my_data"):
        assert word in printed


def test_help_does_not_import_tensorflow():
    """What makes `--help` answer within a second, said without a clock."""
    code = (
        "import sys; from tf_finetune.cli import main; main(['tf-finetune', '--help']);"
        "print(sorted({'tensorflow', 'keras', 'transformers', 'numpy', 'datasets'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "[]"


def test_help_answers_soon():
    """A bound far above the usual 0.2 s, so that only an import gone wrong can break it."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "tf_finetune", "--help"], check=True, capture_output=True)
    assert time.perf_counter() - began < 10

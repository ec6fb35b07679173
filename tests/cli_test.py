"""Wrong input on the command line: one line, status 2, no traceback, nothing left behind."""

import glob
import json
import os
import re
import shutil
import subprocess
import sys
import time

import pytest

from tf_finetune import cli
from tf_finetune.errors import FOUND_STATUS, Found

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
        (
            [],
            "no command, expected tf-finetune followed by train or find-learning-rate or cross-validate or sweep or ",
        ),
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
        ([*TRAIN, "--config=my_data:other.csv"], "no such data, in data.source, expected .*, got other.csv"),
        (
            [*MINE, "--config.model.checkpoint=nowhere"],
            "model.checkpoint is no folder here, and no such model on the hub, .* got nowhere",
        ),
        (
            [*MINE, "--config.model.checkpoint=empty"],
            "checkpoint has no config.json, in .*/empty, expected a folder in",
        ),
        ([*MINE, "--confg=x"], "Unknown command line flag 'confg'. Did you mean: config"),
        ([*MINE, "--input=x"], "--input is a flag of predict, got train"),
        ([*MINE, "--audit"], "--audit is a flag of report, got train"),
        (
            ["report", "--workdir=run", "--config=smoke", "--identity_terms=x"],
            "--identity_terms is for an audit, expected --audit beside it, got x",
        ),
        (["compare", "run"], "no trained model, in run"),
        (["compare", "--config=smoke", "run"], "two runs are compared, expected compare RUN OTHER_RUN, .*, got run"),
        (
            ["compare", "--config=smoke", "a", "b", "--workdir=c"],
            "compare takes no --workdir, expected compare RUN OTHER_RUN, got c",
        ),
        (
            ["compare", "--config=smoke", "a", "b", "--margin=-1"],
            "not a margin, in --margin, expected 0 or more, got -1",
        ),
        (["compare", "--config=smoke", "a", "b", "--margin=nan"], "not a margin, in --margin, expected 0 or more"),
        (["drift"], "nothing to compare with, expected --reference=WORKDIR of a run"),
        (
            ["drift", "--workdir=run", "--data=mine.csv"],
            "drift takes no --workdir, expected --reference=WORKDIR of a run",
        ),
        (["drift", "--reference", "run", "--data", "mine.csv"], "no trained model, in run, expected a workdir that"),
        (
            ["drift", "--reference=run", "--config=smoke"],
            "no new texts, expected --data=FILE, a table or one text a line",
        ),
        (
            ["drift", "--reference=run", "--config=smoke", "--data=no.csv"],
            "no such file, in --data, expected a table, or a file of texts, got no.csv",
        ),
        (
            ["drift", "--reference=run", "--config=smoke", "--data=broken.py", "--config.data.text_column=body"],
            "data.text_column is a column of --data, expected --data=FILE of .csv, .* or .parquet, got broken.py",
        ),
        ([*MINE, "--data=x"], "--data is a flag of drift, got train"),
        ([*MINE, "--reference=x"], "--reference is a flag of drift, got train"),
        ([*MINE, "--json=x"], "--json is a flag of check-data, compare and drift, got train"),
        ([*MINE, "--saved_model=x"], "--saved_model is a flag of predict and verify, got train"),
        (["verify"], "no working directory, expected --workdir=DIR or --saved_model=DIR"),
        (
            ["verify", "--workdir=run", "--saved_model=x"],
            "no trained model, in run, expected a workdir that `tf-finetune train` filled",
        ),
        (
            ["verify", "--workdir=run", "--saved_model=x", "--config=smoke"],
            "two models, expected --workdir=DIR or --saved_model=DIR, not both",
        ),
        (
            ["predict", "--saved_model=x", "--config.train.eval_batch_size=8", "text"],
            "an export has no config to change, in predict --saved_model, got --config.train.eval_batch_size",
        ),
        (
            ["predict", "--saved_model=x", "--explain", "text"],
            "an export has no gradients to explain with, expected --workdir=DIR of the run that .*, got --saved_model",
        ),
        ([*MINE, "--explain"], "--explain is a flag of predict, got train"),
        (["verify", "--saved_model=x"], "no export, in x, expected a version that `tf-finetune export` wrote"),
        ([*MINE, "text"], "train takes flags only, got 'text'"),
        (["evaluate", "--workdir=run"], "no trained model, in run, expected a workdir that `tf-finetune train` filled"),
        (
            ["evaluate", "--workdir=run", "--config=reviews_minilm", "--restart"],
            "--restart is a flag of train and cross-validate, got eval",
        ),
        ([*MINE, "--config.data=x"], "data is a section of the config, .*, expected one of data.source"),
        ([*MINE, "--config.model.checkpoint="], "no such checkpoint, in model.checkpoint"),
        (["predict", "--workdir=run", "text"], "no trained model, in run"),
        (
            ["predict", "--workdir=run", "--config=reviews_minilm", "--config.data.text_column=body", "text"],
            "data.text_column is a column of --input, expected --input=FILE of .csv, .tsv, .jsonl or .parquet",
        ),
        (["evaluate", "--workdir=run", "--config=smoke", "--dry_run"], "--dry_run is a flag of train, got evaluate"),
        (["push-to-hub", "--workdir=run", "--config=smoke"], "nowhere to push to, expected --repo=OWNER/NAME"),
        ([*TRAIN, "--config=smoke", "--repo=a/b"], "--repo is a flag of push-to-hub, got train"),
        ([*TRAIN, "--config=mine.jsonl"], "no such config file, .* expected my_data:mine.jsonl for a file of your own"),
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


def read_json(name):
    with open(name, encoding="utf-8") as file:
        return json.load(file)


def refused(arguments, capsys, *, status=2):
    """The one line a command line is refused with."""
    capsys.readouterr()
    assert cli.main(["tf-finetune", *arguments]) == status
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return captured.err.strip().splitlines()[-1]


def in_a_process(arguments, environment):
    command = [sys.executable, "-m", "tf_finetune", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def with_checkpoint(folder):
    return [*MINE, f"--config.model.checkpoint={folder}", "--config.data.max_length=32"]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"train.csv": TABLE, "test.csv": "text,label\nfine,maybe\n"},
            "a label of the test split is unknown, in .*test.csv line 2, expected no or yes, got 'maybe'",
        ),
        ({"train.csv": "text,label\nfine,\n"}, "a label is missing, in .*train.csv line 2"),
        ({"train.csv": TABLE, "test.csv": "text,label\n"}, "the test split is empty, in .*data"),
        ({"train.csv": TABLE.replace("no\n", "yes\n")}, "only one class in the training data, in .*data, .* got yes"),
        (
            {"train.csv": TABLE.replace("no\n", "0.5\n").replace("yes\n", "1.5\n")},
            "labels are fractional numbers, in .*data, expected classes: .*; numbers need .*=regression, got '0.5'",
        ),
        ({"train.csv": TABLE.replace(",", ";")}, "no such column, in .*train.csv, expected a column 'text' and commas"),
        ({"notes.md": "# data"}, "no splits in the data folder, in .*data, expected train.csv, .*"),
    ],
)
def test_wrong_data_gets_one_line(files, message, capsys):
    os.mkdir("data")
    for name, content in files.items():
        write(f"data/{name}", content)
    error = refused([*TRAIN, "--config=my_data:data"], capsys)
    assert re.search(f"^error: {message}", error)
    assert not os.path.exists("run")


def test_wrong_data_is_refused_before_tensorflow_is_imported():
    """What makes the answer come at once, said without a clock."""
    code = (
        "import sys; from tf_finetune.cli import main;"
        "status = main(['tf-finetune', 'train', '--config=my_data:nowhere.csv', '--workdir=run']);"
        "print(status, sorted({'tensorflow', 'keras', 'transformers', 'datasets'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "2 []"


@pytest.mark.parametrize("flag", [[], ["--dry_run"]], ids=["run", "dry_run"])
def test_wrong_checkpoints_get_one_line(tiny_checkpoint, capsys, tmp_path, flag):
    write("mine.csv", TABLE)
    for name in ("other", "larger"):
        shutil.copytree(tiny_checkpoint, name)
    description = json.loads((tmp_path / "other" / "config.json").read_text())
    write("other/config.json", json.dumps(description | {"model_type": "roberta"}))
    with open("larger/vocab.txt", "a", encoding="utf-8") as file:
        file.write("another\n")
    error = refused([*with_checkpoint("other"), *flag], capsys)
    assert re.search("not a BERT checkpoint, in .*other/config.json, expected model_type bert, got .*roberta", error)
    error = refused([*with_checkpoint("larger"), *flag], capsys)
    assert re.search("the tokenizer has more tokens than the model, in .*larger, expected at most 24, got 25", error)
    error = refused([*with_checkpoint(tiny_checkpoint), "--config.data.max_length=65", *flag], capsys)
    assert "texts would be longer than the checkpoint's positions, in data.max_length, expected at most 64" in error
    assert not os.path.exists("run")


def test_a_workdir_that_cannot_be_made(capsys):
    write("mine.csv", TABLE)
    error = refused(["train", "--config=my_data:mine.csv", "--workdir=/proc/run"], capsys)
    assert re.search("^error: cannot write the working directory, in /proc/run, got ", error)


class TestHub:
    """A checkpoint by its name, on the stand-in for the hub."""

    @pytest.fixture(autouse=True)
    def on_hub(self, hub, empty_hub_cache, tiny_checkpoint):
        write("mine.csv", TABLE)
        shutil.copytree(tiny_checkpoint, hub.folder / "models" / "someone" / "bert", dirs_exist_ok=True)
        yield
        hub.reset()

    def test_from_download_to_a_pinned_revision(self, capsys, hub):
        assert cli.main(["tf-finetune", *with_checkpoint("someone/bert"), "--config.train.epochs=1"]) == 0
        captured = capsys.readouterr()
        assert re.search(r"fetching someone/bert@\w{7} from 127.0.0.1:\d+: \d files, [\d.]+ kB, into ", captured.err)
        checkpoint = read_json("run/config.json")["model"]["checkpoint"]
        assert re.fullmatch("someone/bert@[0-9a-f]{40}", checkpoint)
        [manifest] = glob.glob("run/checkpoints/*/manifest.json")
        assert read_json(manifest)["base"] == checkpoint

    def test_no_such_repository(self, capsys):
        assert re.search(
            "no such model on the hub, .* got someone/brt", refused(with_checkpoint("someone/brt"), capsys)
        )
        assert not os.path.exists("run")

    def test_no_such_revision(self, capsys):
        error = refused(with_checkpoint("someone/bert@v9"), capsys)
        assert re.search("no such revision, in someone/bert, expected a branch, a tag or a whole commit, got v9", error)

    def test_a_download_that_breaks_off(self, hub, hub_environment):
        hub.truncate = {"model.safetensors": 1000}
        result = in_a_process(with_checkpoint("someone/bert"), hub_environment)
        assert result.returncode == 2
        error = result.stderr.splitlines()[-1]
        assert re.search(
            r"^error: the download broke off; try again, in someone/bert@\w+ model.safetensors, exp", error
        )
        assert not os.path.exists("run")
        hub.reset()
        assert (
            in_a_process([*with_checkpoint("someone/bert"), "--config.train.epochs=1"], hub_environment).returncode == 0
        )

    def test_a_hub_out_of_reach(self, hub_environment):
        environment = hub_environment | {"HF_ENDPOINT": "http://127.0.0.1:9"}
        result = in_a_process(with_checkpoint("someone/bert"), environment)
        assert result.returncode == 2
        assert re.search("^error: .*someone/bert.*127.0.0.1:9", result.stderr.splitlines()[-1])
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
    assert "expected KERAS_BACKEND=tensorflow, jax or unset, got KERAS_BACKEND=torch" in capsys.readouterr().err


def test_a_file_in_the_place_of_the_workdir(capsys, packaged_checkpoint):
    write("mine.csv", TABLE)
    write("run", "")
    assert cli.main(["tf-finetune", *MINE]) == 2
    assert "cannot write the working directory, in run, got a file" in capsys.readouterr().err


def test_an_answer_that_is_no_has_a_status_of_its_own(monkeypatch, capsys):
    """The command has said it all, and nothing went wrong: no line of an error."""

    def found(command, values, positional):
        raise Found("major drift")

    monkeypatch.setattr(cli, "_call", found)
    write("mine.csv", TABLE)
    assert cli.main(["tf-finetune", *MINE]) == FOUND_STATUS
    assert capsys.readouterr().err == ""


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

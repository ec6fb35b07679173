"""Every command and every piece of Python in the README is run, shortened; what needs docker is parsed."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest
from in_process import tf_finetune
from nbclient.cli import NbClientApp

from tf_finetune.evaluation import drift, paired
from tf_finetune.serving.server_files import MODELS
from tf_finetune.serving.server_readme import IMAGE

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")

# What makes a training command take seconds; appended where the command does not say it itself.
SHORT = ("--config.train.epochs=1", "--config.data.max_examples=32", "--config.train.batch_size=8")
# Real weights train in `make demo` and in the Python; these commands are run with a small random model.
TINY = "--config.model.checkpoint=random-tiny"
# An export is verified where the reader asks for that; that it verifies itself is shown in commands/road_test.py.
SHORT_EXPORT = ("--config.export.verify=false",)
# The tutorial takes 200 of its examples for validation.
SHORT_TUTORIAL = ("--config.train.epochs=1", "--config.data.max_examples=232")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


COMMANDS = [line for block in blocks("sh") for line in block.strip().splitlines()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where a reader would stand: their tickets, and texts to classify."""
    folder = tmp_path_factory.mktemp("reader")
    rows = [
        f"ticket {i} about {'an invoice' if i % 2 else 'a crash'},{'billing' if i % 2 else 'technical'}"
        for i in range(80)
    ]
    for name in ("tickets.csv", "new_tickets.csv"):
        (folder / name).write_text("text,label\n" + "\n".join(rows) + "\n", encoding="utf-8")
    (folder / "texts.txt").write_text("My invoice is wrong.\nThe app crashes.\n", encoding="utf-8")
    return folder


def run(command, folder, *more):
    """Runs a tf-finetune command line, redirections of standard input included.

    Args:
        command: as the README has it.
        folder: to run it in.
        more: flags of those commands that train, where they do not say it themselves.
    """
    words, _, stdin = command.partition(" < ")
    words = shlex.split(words)
    assert words.pop(0) == "tf-finetune"
    if words[0] in ("cross-validate", "sweep", "find-learning-rate"):
        words = [word for word in words if not word.startswith(("--trials=", "--config.data.folds="))]
        words += ["--config.train.epochs=1", *more]
        words += {"sweep": ["--trials=1"], "cross-validate": ["--config.data.folds=2"]}.get(words[0], [])
    if words[0] == "train":
        given = {word.split("=")[0] for word in words}
        short = SHORT_TUTORIAL if "--config=imdb_tutorial" in words else SHORT
        words += [word for word in (*short, *more) if word.split("=")[0] not in given]
    words += SHORT_EXPORT if words[0] == "export" else ()
    given = (folder / stdin).read_text(encoding="utf-8") if stdin else ""
    # The test split of the few tickets that train here.
    few = mock.patch.object(drift, "FEWEST_TEXTS", 5), mock.patch.object(paired, "FEWEST_IN_ALL", 5)
    with mock.patch.dict(os.environ, {"HF_TOKEN": "hf_a_token"}), few[0], few[1]:
        result = tf_finetune(*words, stdin=given, cwd=folder)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_the_commands(folder, packaged_checkpoint, imdb_on_hub, imdb_in_tfds):
    """In the README's order, as a reader would type them; the hub and tfds are stand-ins."""
    commands = [command for command in COMMANDS if command.startswith("tf-finetune")]
    assert len(commands) >= 18
    printed = {command: run(command, folder, *() if "--config=imdb" in command else (TINY,)) for command in commands}
    predictions = [output for command, output in printed.items() if command.startswith("tf-finetune predict")]
    assert len(predictions) == 5
    for output in predictions:
        answers = [json.loads(line) for line in output.splitlines()]
        assert [answer["text"] for answer in answers] == ["My invoice is wrong.", "The app crashes."]
    [listing] = [block for block in blocks("text") if block.startswith("runs/tickets/")]
    names = re.findall(r"^  ([\w.]+)/? ", listing, flags=re.MULTILINE)
    assert {"config.json", "checkpoints", ".lock"} <= set(names)
    for name in names:
        assert (folder / "runs" / "tickets" / name).exists(), name


def test_make_demo_runs_what_it_says(folder, packaged_checkpoint):
    """The recipe of `make demo`, its training shortened."""
    recipe = re.search(r"^demo:.*\n((?:\t.*\n)+)", MAKEFILE, flags=re.MULTILINE)[1]
    recipe = recipe.replace("\\\n", "").replace("$(BIN)/", "").replace("$(WORKDIR)", "runs/demo")
    commands = [line.strip() for line in recipe.strip().splitlines()]
    assert [command.split()[1] for command in commands] == [
        "train",
        "evaluate",
        "export",
        "verify",
        "predict",
        "report",
    ]
    for command in commands:
        run(command, folder)
    assert (folder / "runs" / "demo" / "export" / "1" / "saved_model.pb").is_file()
    assert (folder / "runs" / "demo" / "report.html").is_file()


def test_make_knows_the_targets():
    for command in (command for command in COMMANDS if command.startswith("make ")):
        subprocess.run([*command.split(), "--dry-run"], cwd=ROOT, check=True, capture_output=True)


def test_the_rest_is_docker_and_curl_and_fits_the_signature_or_runs_the_notebook():
    rest = [shlex.split(c) for c in COMMANDS if not c.startswith(("tf-finetune", "make "))]
    assert [words[0] for words in rest] == ["docker", "curl", "jupyter"]
    docker, curl, jupyter = rest
    assert "$PWD/runs/tickets/export:/models/tickets:ro" in docker
    assert IMAGE in docker
    assert f"--model_config_file=/models/tickets/{MODELS}" in docker
    assert curl[-1].endswith(":8501/v1/models/tickets:predict")
    instances = json.loads(curl[curl.index("-d") + 1])["instances"]
    assert all(isinstance(text, str) for text in instances)  # one input, so an instance is its value
    assert jupyter[1] == "execute"
    execute = NbClientApp()
    execute.parse_command_line(jupyter[2:])
    assert execute.output_base
    assert [(ROOT / name).is_file() for name in execute.extra_args] == [True]


def test_the_python(folder, packaged_checkpoint):
    code = "\n".join(blocks("python")).replace(
        "config.train.epochs = 1", "config.train.epochs = 1\n" + "config.data.max_examples = 16"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        capture_output=True,
        text=True,
        env=os.environ | {"KERAS_BACKEND": "tensorflow"},
    )
    assert result.returncode == 0, result.stderr
    assert re.search(r"^(billing|technical) \{'billing': ", result.stdout, flags=re.MULTILINE)

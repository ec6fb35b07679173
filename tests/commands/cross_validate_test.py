"""Cross-validation: each fold is a run, and together they answer every training example unseen."""

import json

import numpy as np
import pytest

from tf_finetune import InputError, settings
from tf_finetune.commands import cross_validate as module
from tf_finetune.commands.cross_validate import cross_validate
from tf_finetune.commands.evaluate import evaluate
from tf_finetune.commands.train import train
from tf_finetune.config import ProblemType
from tf_finetune.data import sources
from tf_finetune.evaluation.label_errors import read_out_of_fold

pytestmark = pytest.mark.usefixtures("eagerly_throughout")


@pytest.fixture
def config(config):
    config.data.folds, config.train.batch_size = 2, 16
    return config


def predictions(workdir):
    return [json.loads(line) for line in (workdir / "out_of_fold.jsonl").read_text().splitlines()]


def test_all_of_it(config, tmp_path, capsys):
    result = cross_validate(config, tmp_path / "cv")
    printed = capsys.readouterr().out
    assert json.loads((tmp_path / "cv" / "cross_validation.json").read_text()) == result
    accuracies = [metrics["accuracy"] for metrics in result["folds"]]
    assert len(accuracies) == 2
    assert result["mean"]["accuracy"] == pytest.approx(np.mean(accuracies))
    assert result["std"]["accuracy"] == pytest.approx(np.std(accuracies, ddof=1))
    assert f"{result['mean']['accuracy']:.4f}" in printed

    rows = predictions(tmp_path / "cv")
    plain = settings.source_options(config) | {"folds": 0}
    trained_on = sources.load(**plain).examples["train"]
    assert sorted(row["where"] for row in rows) == sorted(trained_on.places)
    true = dict(zip(trained_on.places, trained_on.labels, strict=True))
    assert all(row["true"] == ("neg", "pos")[true[row["where"]]] for row in rows)
    right = np.mean([row["label"] == row["true"] for row in rows])
    assert result["out_of_fold"]["accuracy"] == pytest.approx(right)
    assert result["out_of_fold"]["examples"] == len(rows) == len(trained_on)
    assert not list((tmp_path / "cv").glob(".out_of_fold*"))
    read = read_out_of_fold(tmp_path / "cv" / "out_of_fold.jsonl")
    assert [read.label_names[label] for label in read.labels] == [row["true"] for row in rows]
    # Each is a run like any other, whose test split is its fold.
    measured = evaluate(tmp_path / "cv" / "fold_1")["test"]
    assert measured["examples"] == result["folds"][1]["examples"]
    assert measured["accuracy"] == result["folds"][1]["accuracy"]


def test_interrupted_it_goes_on(config, tmp_path, monkeypatch):
    expected = cross_validate(config, tmp_path / "whole")
    begun = []

    def killed(config, folder, **options):
        begun.append(folder.name)
        if len(begun) == 2:
            raise KeyboardInterrupt
        return train(config, folder, **options)

    with monkeypatch.context() as patched:
        patched.setattr(module, "train", killed)
        with pytest.raises(KeyboardInterrupt):
            cross_validate(config, tmp_path / "cv")
    assert not (tmp_path / "cv" / "cross_validation.json").exists()
    assert not (tmp_path / "cv" / "out_of_fold.jsonl").exists()
    assert cross_validate(config, tmp_path / "cv") == expected
    assert predictions(tmp_path / "cv") == predictions(tmp_path / "whole")


@pytest.mark.parametrize(
    ("label", "kind"), [(0.25, ProblemType.REGRESSION), (["good"], ProblemType.AUTO)], ids=["numbers", "lists"]
)
def test_other_labels(config, tmp_path, label, kind):
    path = tmp_path / "rows.jsonl"
    rows = [{"text": f"film {i} is good", "label": label if i % 3 else [] if kind is ProblemType.AUTO else 1.0}
            for i in range(60)]  # fmt: skip
    rows += [{"text": f"plot {i}", "label": ["bad"] if kind is ProblemType.AUTO else -1.0} for i in range(60)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config.data.source, config.model.problem_type, config.data.folds = str(path), kind, 2
    result = cross_validate(config, tmp_path / "cv")
    shown = "f1" if kind is ProblemType.AUTO else "mean_absolute_error"
    assert shown in result["mean"]
    true = [row["true"] for row in predictions(tmp_path / "cv")]
    assert label in true
    if kind is ProblemType.REGRESSION:
        with pytest.raises(InputError, match="label errors are looked for among classes, in .* got numbers"):
            read_out_of_fold(tmp_path / "cv" / "out_of_fold.jsonl")
    else:
        assert read_out_of_fold(tmp_path / "cv" / "out_of_fold.jsonl").labels.shape == (len(true), 2)


def test_one_fold_alone_is_for_train(config, tmp_path):
    config.data.fold = 1
    with pytest.raises(InputError, match=r"cross-validation has every fold, in data.fold, expected 0, .* got 1"):
        cross_validate(config, tmp_path / "cv")
    assert not (tmp_path / "cv").exists()


def test_a_folder_with_a_run_is_refused(config, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{}")
    with pytest.raises(InputError, match="the folder holds a run, in .*, expected a folder for several runs"):
        cross_validate(config, tmp_path / "run")


def test_five_folds_unless_said_otherwise(config, tmp_path, monkeypatch):
    seen = []

    def stop(config, folder, **options):
        seen.append((config.data.folds, config.data.fold, folder.name))
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "train", stop)
    config.data.folds = 0
    with pytest.raises(KeyboardInterrupt):
        cross_validate(config, tmp_path / "cv")
    assert seen == [(5, 0, "fold_0")]


def begun_only(monkeypatch):
    def stop(config, folder, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "train", stop)


def test_data_that_changed_meanwhile_is_refused(config, table, tmp_path, monkeypatch):
    begun_only(monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        cross_validate(config, tmp_path / "cv")
    table.write_text(table.read_text() + "one more film is good,pos\n")
    with pytest.raises(InputError, match="the folder is for other runs, in .*, expected what it was begun with"):
        cross_validate(config, tmp_path / "cv")


def test_a_checkpoint_that_may_have_seen_the_texts_is_warned_of(config, tmp_path, monkeypatch, capsys):
    train(config, tmp_path / "run")
    config.model.checkpoint = str(tmp_path / "run")
    begun_only(monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        cross_validate(config, tmp_path / "cv")
    assert "model.checkpoint may have been trained on texts of these folds" in capsys.readouterr().err

"""Two runs of a tiny model on the same examples, from the command line."""

import json
import math
import shutil

import films
import pytest
from films import sentences, write_rows

from tf_finetune import cli, json_files, settings
from tf_finetune.commands.compare import compare
from tf_finetune.commands.train import train
from tf_finetune.config import ProblemType
from tf_finetune.errors import InputError
from tf_finetune.workdir import Workdir

DRAWN = {"data.max_examples": 50, "runtime.seed": 7}


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return write_rows(tmp_path_factory.mktemp("compare") / "rows.csv", sentences(1200, ("pos", "neg")))


@pytest.fixture(scope="module")
def good(table, tiny_checkpoint):
    """It has learnt which word means what."""
    config = films.three_epochs(table, tiny_checkpoint)
    config.train.epochs, config.data.slice_columns = 8, "shop"
    train(config, table.parent / "good")
    return table.parent / "good"


@pytest.fixture(scope="module")
def poor(table, tiny_checkpoint):
    """It has hardly learnt anything."""
    config = films.one_epoch(table, tiny_checkpoint)
    config.optimizer.learning_rate = 1e-6
    train(config, table.parent / "poor")
    return table.parent / "poor"


def test_a_worse_model_does_not_pass(good, poor, tmp_path, capsys):
    facts = tmp_path / "facts.json"
    assert cli.main(["tf-finetune", "compare", str(good), str(poor), f"--json={facts}"]) == 3
    printed = capsys.readouterr().out
    found = json.loads(facts.read_text(encoding="utf-8"))
    assert not found["passes"]
    assert found["metrics"]["accuracy"]["interval"][1] < 0
    assert "it is worse beyond chance" in found["reasons"][0]
    assert found["before"]["workdir"] == str(good)
    assert (found["metric"], found["split"], found["examples"]) == ("accuracy", "test", found["overall"]["examples"])
    assert f"{poor} shall not take the place of {good}" in printed
    assert {one["column"] for one in found["slices"]} >= {"true label", "shop"}
    assert found["before"]["weights"] == found["after"]["weights"] > 0
    assert min(found[side]["texts_per_second"] for side in ("before", "after")) > 0


def test_a_better_model_passes(good, poor, capsys):
    assert cli.main(["tf-finetune", "compare", str(poor), str(good), "--margin=0.01"]) == 0
    assert f"{good} may take the place of {poor}" in capsys.readouterr().out


def test_a_model_equals_itself(good):
    found = compare(good, good)
    assert found["passes"]
    assert all(one["difference"] == 0 for one in found["metrics"].values())
    assert found["overall"]["better"] == found["overall"]["worse"] == 0


def test_labels_in_another_order_are_the_same_labels(good, tmp_path):
    """The other model has its classifier's rows and labels the other way round, so that it answers the same."""
    from tf_finetune.bert.model import TFBertForSequenceClassification
    from tf_finetune.workdir import read_manifest, write_manifest

    run = Workdir(shutil.copytree(good, tmp_path / "turned"))
    folder = run.best_checkpoint()
    manifest = {name: value for name, value in read_manifest(folder).items() if name != "files"}
    model = TFBertForSequenceClassification.from_pretrained(folder)
    kernel, bias = model.classifier.weights
    kernel.assign(kernel.numpy()[:, ::-1])
    bias.assign(bias.numpy()[::-1])
    model.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    names = list(config["id2label"].values())[::-1]
    config |= {"id2label": dict(enumerate(names)), "label2id": {name: k for k, name in enumerate(names)}}
    (folder / "config.json").write_text(json.dumps(config))
    write_manifest(folder, **manifest)
    found = compare(good, run.path)
    assert found["overall"]["better"] == found["overall"]["worse"] == 0


def test_a_file_for_both(good, poor, tmp_path, capsys):
    rows = write_rows(tmp_path / "new.csv", sentences(200, ("pos", "neg"), seed=7))
    arguments = [
        f"--config.data.source={rows}",
        "--config.data.slice_columns=shop",
        f"--json={tmp_path / 'facts.json'}",
    ]
    assert cli.main(["tf-finetune", "compare", str(poor), str(good), *arguments]) == 0
    assert "200 examples of test" in capsys.readouterr().out
    found = json.loads((tmp_path / "facts.json").read_text(encoding="utf-8"))
    assert {one["value"] for one in found["slices"] if one["column"] == "shop"} == {"shop 0", "shop 1", "shop 2"}


def test_a_file_is_measured_whole_whatever_the_runs_drew(good, tmp_path):
    few = Workdir(shutil.copytree(good, tmp_path / "few"))
    json_files.write(few.config, settings.to_dict(settings.with_values(settings.load_json(few.config), DRAWN)))
    rows = write_rows(tmp_path / "new.csv", sentences(200, ("pos", "neg"), seed=7))
    config = settings.with_values(settings.load_json(good / "config.json"), {"data.source": str(rows)})
    assert compare(good, few.path, config)["examples"] == 200


def test_other_examples_are_refused(good, tmp_path, tiny_checkpoint):
    other = write_rows(tmp_path / "other.csv", sentences(1200, ("pos", "neg"), seed=3))
    train(films.one_epoch(other, tiny_checkpoint), tmp_path / "run")
    expected = "the runs were not measured on the same examples, .* or a --config.data.source=FILE for both, got"
    with pytest.raises(InputError, match=expected):
        compare(good, tmp_path / "run")


def test_other_labels_are_refused(good, tmp_path, tiny_checkpoint):
    other = write_rows(tmp_path / "other.csv", sentences(1200, ("yes", "no")))
    train(films.one_epoch(other, tiny_checkpoint), tmp_path / "run")
    expected = "the runs have other labels, .* expected single_label_classification: neg, pos, got .*: no, yes"
    with pytest.raises(InputError, match=expected):
        compare(good, tmp_path / "run")


def test_other_labels_of_the_same_texts_are_refused(good, table, tmp_path, tiny_checkpoint):
    turned = {"pos": "neg", "neg": "pos"}
    rows = [
        (text, turned[label] if shop == "shop 1" else label, shop)
        for text, label, shop in sentences(1200, tuple(turned))
    ]
    train(films.one_epoch(write_rows(tmp_path / "other.csv", rows), tiny_checkpoint), tmp_path / "run")
    with pytest.raises(InputError, match="the same texts have other labels, .* got .* of them"):
        compare(good, tmp_path / "run")


def test_what_the_second_run_was_trained_on_is_no_measure(good, tmp_path, tiny_checkpoint):
    other = write_rows(tmp_path / "other.csv", sentences(1200, ("pos", "neg"), seed=3))
    train(films.one_epoch(other, tiny_checkpoint), tmp_path / "run")
    config = settings.with_values(settings.load_json(good / "config.json"), {"data.source": str(other)})
    with pytest.raises(InputError, match="the second run was trained on these examples, in data.source"):
        compare(good, tmp_path / "run", config)


def test_pairs_and_single_texts_are_not_compared(good, tmp_path, tiny_checkpoint):
    path = write_rows(tmp_path / "pairs.csv", sentences(300, ("pos", "neg")))
    config = films.one_epoch(path, tiny_checkpoint)
    config.data.text_pair_column = "shop"
    train(config, tmp_path / "run")
    new = write_rows(tmp_path / "new.csv", sentences(200, ("pos", "neg"), seed=7))
    config = settings.with_values(settings.load_json(good / "config.json"), {"data.source": str(new)})
    with pytest.raises(InputError, match="compare cannot change data.text_pair_column of a trained model"):
        compare(good, tmp_path / "run", config)


@pytest.mark.parametrize("margin", [-0.1, math.nan, math.inf])
def test_a_margin_that_is_none(good, margin):
    with pytest.raises(InputError, match="not a margin, in --margin, expected 0 or more"):
        compare(good, good, margin=margin)


@pytest.mark.parametrize(
    ("kind", "labels", "metric"),
    [
        (ProblemType.REGRESSION, ("1.5", "-2"), "mean_absolute_error"),
        pytest.param(ProblemType.MULTI_LABEL_CLASSIFICATION, ("good,kind", "bad"), "f1", marks=pytest.mark.slow),
    ],
)
def test_labels_of_other_kinds(tmp_path, tiny_checkpoint, kind, labels, metric):
    table = write_rows(tmp_path / "rows.csv", sentences(1200, labels))
    for name, epochs, rate in (("good", 6, 1e-3), ("poor", 1, 1e-6)):
        config = films.three_epochs(table, tiny_checkpoint)
        config.model.problem_type, config.train.epochs, config.optimizer.learning_rate = kind, epochs, rate
        train(config, tmp_path / name)
    assert compare(tmp_path / "poor", tmp_path / "good")["passes"]
    found = compare(tmp_path / "good", tmp_path / "poor")
    assert found["metric"] == metric
    assert not found["passes"]


def test_no_run(good, tmp_path):
    with pytest.raises(InputError, match="no trained model"):
        compare(good, tmp_path / "nowhere")

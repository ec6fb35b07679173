"""Probabilities with a temperature: fitted in train, and used by all that answers."""

import json
import re
import shutil

import numpy as np
import pytest
from films import three_epochs, write_films

from tf_finetune import TFBertForSequenceClassification
from tf_finetune.commands.evaluate import evaluate
from tf_finetune.commands.export import export
from tf_finetune.commands.predict import predict, predict_with_export
from tf_finetune.commands.restore import load_classifier, temperature_of
from tf_finetune.commands.train import train
from tf_finetune.config import ProblemType
from tf_finetune.data import sources
from tf_finetune.errors import InputError
from tf_finetune.evaluation.calibration import fit_temperature
from tf_finetune.evaluation.metrics import softmax
from tf_finetune.serving.session import run_in_c_api
from tf_finetune.settings import load_json
from tf_finetune.workdir import MANIFEST, Workdir

KIND = ProblemType.SINGLE_LABEL_CLASSIFICATION
TEXTS = ["the film was very good", "a dull plot", "so it is"]


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_checkpoint):
    folder = tmp_path_factory.mktemp("calibrated")
    train(three_epochs(write_films(folder / "films.csv"), tiny_checkpoint), folder / "run")
    return Workdir(folder / "run")


def raw_logits(run, texts):
    """Of the checkpoint as PyTorch users would read it."""
    classifier = load_classifier(run.best_checkpoint(), load_json(run.config))
    classifier.model = TFBertForSequenceClassification.from_pretrained(run.best_checkpoint())
    return classifier.logits(texts)


def test_it_is_fitted_on_validation_and_kept_with_the_checkpoint(run):
    validation = sources.load(load_json(run.config).data.source).examples["validation"]
    expected = fit_temperature(raw_logits(run, list(validation.texts)), np.array(validation.labels), KIND)
    assert temperature_of(run.best_checkpoint()) == pytest.approx(expected, rel=1e-3)
    assert abs(expected - 1) > 0.02
    best = json.loads(run.best.read_text())
    assert best["validation"]["temperature"] == temperature_of(run.best_checkpoint())


def test_predict_and_an_export_answer_with_it(run):
    texts = [*TEXTS, "half \ud800 of a pair"]
    expected = softmax(raw_logits(run, texts) / temperature_of(run.best_checkpoint()))
    saved_model = export(run.path)  # which verifies it
    (tokens,) = run_in_c_api(saved_model, [("serving_default", {"text": TEXTS})])
    np.testing.assert_allclose(tokens["probabilities"], expected[: len(TEXTS)], rtol=0, atol=1e-5)
    for answers in (predict(run.path, texts), predict_with_export(saved_model, texts)):
        found = [list(answer["probabilities"].values()) for answer in answers]
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    card = (saved_model / "assets.extra" / "README.md").read_text()
    assert f"logits divided by {temperature_of(run.best_checkpoint()):.4g}, a temperature fitted on validation" in card


def test_evaluate_says_so_and_measures_the_loss_with_it(run, capsys):
    found = evaluate(run.path)["validation"]["loss"]
    temperature = temperature_of(run.best_checkpoint())
    assert f"calibrated on validation, logits divided by {temperature:.3f}" in capsys.readouterr().out
    assert found < json.loads(run.best.read_text())["validation"]["loss"]


def test_false_fits_none(tmp_path, tiny_checkpoint):
    config = three_epochs(write_films(tmp_path / "films.csv"), tiny_checkpoint)
    config.train.calibrate, config.train.epochs = False, 1
    train(config, tmp_path / "run")
    run = Workdir(tmp_path / "run")
    assert temperature_of(run.best_checkpoint()) == 1
    assert "temperature" not in json.loads(run.best.read_text())["validation"]
    found = [list(answer["probabilities"].values()) for answer in predict(run.path, TEXTS)]
    np.testing.assert_allclose(found, softmax(raw_logits(run, TEXTS)), rtol=0, atol=1e-6)


@pytest.mark.parametrize("value", [0, -1.0, "1.5", True, None, float("inf")])
def test_a_damaged_one_is_refused(run, tmp_path, value):
    folder = shutil.copytree(run.best_checkpoint(), tmp_path / "checkpoint")
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps(manifest | {"temperature": value}))
    with pytest.raises(InputError, match=re.escape(f"expected a number above 0, got {value!r}")):
        temperature_of(folder)

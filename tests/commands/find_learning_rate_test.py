"""The learning rate finder, on a tiny model and on made-up losses."""

import contextlib
import json
import math

import numpy as np
import pytest

from tf_finetune import TFBertForSequenceClassification
from tf_finetune.commands import find_learning_rate as module
from tf_finetune.commands.find_learning_rate import find_learning_rate, smooth, suggestion
from tf_finetune.errors import RunError
from tf_finetune.training.optimizer import RangeTest


def test_the_rate_rises_by_the_same_factor_each_step():
    schedule = RangeTest(1e-2, 100, 0)
    rates = np.array([float(schedule(step)) for step in range(100)])
    assert rates[0] == pytest.approx(1e-7)
    assert rates[-1] == pytest.approx(1e-2)
    np.testing.assert_allclose(rates[1:] / rates[:-1], (1e5) ** (1 / 99), rtol=1e-4)


def test_smoothing_starts_where_the_losses_do():
    assert smooth([0.7])[0] == pytest.approx(0.7)
    np.testing.assert_allclose(smooth([0.5] * 9), 0.5)
    assert smooth([1.0, 0.0])[-1] == pytest.approx(0.9 / 1.9)


def test_the_suggestion_is_a_tenth_of_the_rate_of_the_lowest_loss():
    assert suggestion([1e-6, 1e-5, 1.23e-3, 1e-2], [0.7, 0.6, 0.3, 2.0]) == 1.2e-4


def test_a_loss_that_only_rises_suggests_nothing_and_leaves_the_curve(config, tmp_path, monkeypatch):
    assert suggestion([1e-6, 1e-5], [0.5, 0.6]) is None
    monkeypatch.setattr(module, "_losses", lambda inputs: ([1e-6, 1e-5], [0.5, 0.6]))
    with pytest.raises(RunError, match=r"no learning rate to suggest: the loss was 0\.5000 at first, and never fell"):
        find_learning_rate(config, tmp_path / "run")
    assert json.loads((tmp_path / "run" / "learning_rates.json").read_text())["suggested"] is None
    assert (tmp_path / "run" / "learning_rates.svg").exists()


def test_a_loss_that_is_not_finite_at_once(config, tmp_path, monkeypatch):
    loss_of = TFBertForSequenceClassification.compute_loss
    monkeypatch.setattr(
        TFBertForSequenceClassification, "compute_loss", lambda *args, **kwargs: math.nan * loss_of(*args, **kwargs)
    )
    with pytest.raises(RunError, match="the first training loss is not finite"):
        find_learning_rate(config, tmp_path / "run")


def test_all_of_it(config, tmp_path, capsys):
    config.train.batch_size = 8
    found = find_learning_rate(config, tmp_path / "run")
    assert json.loads((tmp_path / "run" / "learning_rates.json").read_text()) == found
    rates, losses = found["learning_rate"], found["loss"]
    assert len(rates) == len(losses) == len(found["smoothed"]) <= 100
    assert rates == sorted(rates)
    assert len(set(losses)) > len(losses) / 2  # each is a batch's own
    assert rates[0] == pytest.approx(1e-7, rel=1e-4)
    assert 1e-8 < found["suggested"] < rates[-1]
    printed = capsys.readouterr().out
    assert f"suggested: --config.optimizer.learning_rate={found['suggested']:g}" in printed
    plot = tmp_path / "run" / "learning_rates.svg"
    assert f"plot: {plot}" in printed
    assert "</svg>" in plot.read_text()
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == [".lock", "learning_rates.json", plot.name]


def test_it_ends_where_the_loss_diverges(config, tmp_path, monkeypatch):
    config.train.batch_size = 8
    monkeypatch.setattr(module, "DIVERGED", 1.0)
    with contextlib.suppress(RunError):  # it may rise from the first step on
        find_learning_rate(config, tmp_path / "run")
    assert len(json.loads((tmp_path / "run" / "learning_rates.json").read_text())["loss"]) < 100

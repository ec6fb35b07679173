import math

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics

from tf_finetune.config import ProblemType
from tf_finetune.evaluation.metric_intervals import (
    _Ranked,
    area_of_counts,
    difference_intervals,
    draws,
    metric_intervals,
    of_difference,
)
from tf_finetune.evaluation.metrics import metrics_of

ONE, SEVERAL, NUMBER = (
    ProblemType.SINGLE_LABEL_CLASSIFICATION,
    ProblemType.MULTI_LABEL_CLASSIFICATION,
    ProblemType.REGRESSION,
)


def sample(kind, examples, classes, seed=0):
    random = np.random.default_rng(seed)
    logits = random.normal(size=(examples, classes))
    if kind is NUMBER:
        return logits, (logits[:, 0] + random.normal(size=examples)).astype(np.float32)
    if kind is SEVERAL:
        return logits, (logits + random.normal(size=logits.shape) > 0.5).astype(np.float32)
    return logits, (logits + random.normal(size=logits.shape)).argmax(axis=1)


CASES = [(ONE, 2), (ONE, 4), (SEVERAL, 3), (NUMBER, 1)]


class TestMetricIntervals:
    @pytest.mark.parametrize(("kind", "classes"), CASES)
    def test_the_metric_lies_within(self, kind, classes):
        logits, labels = sample(kind, 300, classes)
        found, measured = metric_intervals(logits, labels, kind, resamples=200), metrics_of(logits, labels, kind)
        assert set(found) == set(measured) - {"examples", "confusion_matrix"}
        for name, (low, high) in found.items():
            assert low < measured[name] < high, name

    @pytest.mark.parametrize(("kind", "classes"), CASES[:3])
    def test_the_same_as_measuring_each_resample(self, kind, classes):
        logits, labels = sample(kind, 60, classes)
        (counts,) = draws(60, 40, seed=3)
        measured = [metrics_of(*(np.repeat(part, row, axis=0) for part in (logits, labels)), kind) for row in counts]
        found = metric_intervals(logits, labels, kind, resamples=40, seed=3)
        for name in set(found) - {"accuracy"}:
            values = [one[name] for one in measured if one[name] is not None]
            np.testing.assert_allclose(found[name], np.percentile(values, [2.5, 97.5]), rtol=1e-9, err_msg=name)

    def test_repeatable_and_by_seed(self):
        logits, labels = sample(ONE, 100, 2)
        first, again, other = (metric_intervals(logits, labels, ONE, resamples=50, seed=seed) for seed in (1, 1, 2))
        assert first == again != other

    def test_in_pieces(self, monkeypatch):
        logits, labels = sample(ONE, 50, 2)
        whole = np.concatenate(list(draws(50, 20, 0)))
        monkeypatch.setattr("tf_finetune.evaluation.metric_intervals.PIECE", 350)
        pieces = list(draws(50, 20, 0))
        assert [len(piece) for piece in pieces] == [7, 7, 6]
        assert whole.sum() == sum(map(np.sum, pieces)) == 1000
        assert set(metric_intervals(logits, labels, ONE, resamples=20)) >= {"accuracy", "roc_auc"}

    def test_no_area_of_one_class(self):
        logits, _ = sample(ONE, 40, 2)
        found = metric_intervals(logits, np.zeros(40, np.int64), ONE, resamples=20)
        assert "roc_auc" not in found
        assert "loss" in found


class TestCoverage:
    """How often the interval of a sample holds the true value, which is known here: 95 times in a hundred."""

    SAMPLES, EXAMPLES = 400, 250

    # Of 400 intervals 380 are expected to hold it, 4.4 being the standard deviation: 364 is 3.7 of them below. The
    # bootstrap's middle is known to be a little narrow for so few examples.
    def holds(self, kind, name, truth):
        held = 0
        for seed in range(self.SAMPLES):
            random = np.random.default_rng(seed)
            labels = (random.random(self.EXAMPLES) < 0.5).astype(np.int64)
            margin = 1.5 * (labels - 0.5) * 2 / 2 + random.normal(size=self.EXAMPLES)
            logits = np.stack([np.zeros(self.EXAMPLES), margin], axis=1)
            low, high = metric_intervals(logits, labels, kind, resamples=300, seed=seed)[name]
            held += low <= truth <= high
        return held

    # Margins are normal around -0.75 and 0.75 with deviation 1: a label is right where its margin has its sign, and of
    # a pair the right one is higher where a normal number around 1.5 with variance 2 is above 0.
    @pytest.mark.parametrize(
        ("name", "truth"),
        [("accuracy", stats.norm.cdf(0.75)), ("f1", stats.norm.cdf(0.75)), ("roc_auc", stats.norm.cdf(1.5 / 2**0.5))],
    )
    def test_at_the_stated_rate(self, name, truth):
        assert 364 <= self.holds(ONE, name, truth) <= 396


class TestArea:
    def test_as_sklearn_has_it_with_equal_scores(self):
        random = np.random.default_rng(5)
        scores, positive = random.integers(0, 6, 80) / 6, random.random(80) < 0.4
        (counts,) = draws(80, 30, 1)
        expected = [metrics.roc_auc_score(positive, scores, sample_weight=row) for row in counts]
        np.testing.assert_allclose(area_of_counts(counts, _Ranked.of(positive, scores)), expected, rtol=1e-12)

    def test_none_of_one_kind(self):
        counts = np.array([[1, 1, 0], [0, 1, 2]])
        found = area_of_counts(counts, _Ranked.of(np.array([True, True, False]), np.array([0.1, 0.2, 0.3])))
        assert math.isnan(found[0])
        assert found[1] == 0


def test_no_interval_where_many_resamples_lack_the_metric():
    """Three examples of each of eight classes: most resamples lack one of them, and the area with it."""
    labels = np.repeat(np.arange(8), 3)
    logits = np.random.default_rng(0).normal(size=(24, 8))
    assert "roc_auc" not in metric_intervals(logits, labels, ONE, resamples=100)


def test_no_interval_where_every_resample_is_the_same():
    labels = np.arange(40) % 2
    logits = np.stack([1.0 - labels, labels.astype(float)], axis=1) * 10
    found = metric_intervals(logits, labels, ONE, resamples=50)
    assert set(found) == {"accuracy"}


class TestOfDifference:
    def test_as_newcombe_has_it(self):
        """His example of 36, 12, 2 and 0 of 50."""
        after = np.array([True] * 36 + [True] * 12 + [False] * 2)
        before = np.array([True] * 36 + [False] * 12 + [True] * 2)
        assert of_difference(before, after) == pytest.approx([0.0569, 0.3404], abs=5e-5)

    def test_no_change_in_few_examples_rules_little_out(self):
        right = np.arange(20) < 17
        low, high = of_difference(right, right)
        assert low < -0.03
        assert high > 0.03

    def test_all_right_before_and_after(self):
        low, high = of_difference(np.ones(20, bool), np.ones(20, bool))
        assert low < -0.1
        assert high > 0.1

    @pytest.mark.parametrize("examples", [100, 400])
    def test_it_holds_the_difference_as_often_as_it_says(self, examples):
        """Two models, right on 85% and 83%, with 4% won and 6% lost, over 1,000 samples: 950 are expected."""
        held = 0
        for seed in range(1000):
            kind = np.random.default_rng(seed).choice(4, size=examples, p=[0.79, 0.06, 0.04, 0.11])
            low, high = of_difference((kind == 0) | (kind == 1), (kind == 0) | (kind == 2))
            held += low <= -0.02 <= high
        assert 925 <= held <= 985


def test_the_difference_of_equal_answers():
    logits, labels = sample(ONE, 80, 2)
    found = difference_intervals(logits, logits, labels, ONE, resamples=50)
    assert set(found) == {"accuracy"}
    assert found["accuracy"][0] < 0 < found["accuracy"][1]

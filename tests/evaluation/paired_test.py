import numpy as np
import pytest

from tf_finetune.config import ProblemType
from tf_finetune.evaluation.metric_intervals import difference_intervals
from tf_finetune.evaluation.paired import change, refused, slice_changes

ONE, NUMBER = ProblemType.SINGLE_LABEL_CLASSIFICATION, ProblemType.REGRESSION


def answers(both=50, won=0, lost=0, neither=10):
    """Which of the examples each model has right."""
    before = np.array([True] * both + [False] * won + [True] * lost + [False] * neither)
    after = np.array([True] * both + [True] * won + [False] * lost + [False] * neither)
    return before, after


class TestChange:
    def test_counts_and_shares(self):
        found = change(*answers(both=50, won=4, lost=6, neither=40))
        assert (found.examples, found.before, found.after, found.better, found.worse) == (100, 0.56, 0.54, 4, 6)

    def test_chance_by_hand(self):
        # Three of three that differ are lost: each was as likely to be won.
        assert change(*answers(won=0, lost=3)).chance == pytest.approx(1 / 8)
        assert change(*answers(won=3, lost=0)).chance == 1

    def test_the_same_answers(self):
        assert change(*answers()).chance == 1

    def test_errors(self):
        before = np.linspace(0.1, 1, 50)
        worse, same = change(before, before + 0.3), change(before, before)
        assert (worse.better, worse.worse, same.better, same.worse) == (0, 50, 0, 0)
        assert worse.chance < 1e-6
        assert same.chance == 1


class TestSlices:
    def test_a_slice_that_got_worse_is_found_where_the_whole_did_not(self):
        random = np.random.default_rng(0)
        before = random.random(2000) < 0.85
        after = before.copy()
        small = np.arange(2000) < 100
        after[np.flatnonzero(small & before)[:20]] = False
        after[np.flatnonzero(~small & ~before)[:25]] = True
        assert change(before, after).chance > 0.05
        found = slice_changes(before, after, {("product", "a"): small, ("product", "b"): ~small})
        assert [one.is_worse for one in found] == [True, False]

    def test_few_examples_are_left_out(self):
        before, after = answers()
        assert slice_changes(before, after, {("n", "few"): np.arange(60) < 29}) == []


class TestRefused:
    def test_nothing_speaks_against_equal_models(self):
        assert refused(change(*answers(won=3, lost=3)), [], low=-0.01, margin=None) == []

    def test_worse_beyond_chance(self):
        (reason,) = refused(change(*answers(won=1, lost=20)), [], low=-0.3, margin=None)
        assert "20 answers lost and 1 won" in reason

    def test_a_margin_has_to_be_ruled_out(self):
        overall = change(*answers(won=3, lost=3))
        assert refused(overall, [], low=-0.01, margin=0.02) == []
        assert refused(overall, [], low=-0.03, margin=0.02) == ["it may be 0.0300 worse, which is more than 0.02"]

    def test_a_slice(self):
        found = slice_changes(*answers(both=0, won=0, lost=30, neither=10), {("label", "pos"): np.ones(40, bool)})
        assert refused(change(*answers()), found, low=0, margin=None) == [
            "it is worse where label is pos: 0.7500 before, 0.0000 now"
        ]


class TestDifferences:
    def test_equal_answers_differ_by_nothing(self):
        logits = np.random.default_rng(0).normal(size=(80, 2))
        labels = np.arange(80) % 2
        found = difference_intervals(logits, logits, labels, ONE, resamples=50)
        assert set(found) == {"accuracy", "precision", "recall", "f1", "roc_auc", "loss"}
        assert set(map(tuple, found.values())) == {(0.0, 0.0)}

    def test_examples_hard_for_both_do_not_widen_it(self):
        random = np.random.default_rng(0)
        labels = random.integers(2, size=500)
        margin = (2 * labels - 1) + 2 * random.normal(size=500)
        logits, others = (np.stack([np.zeros(500), margin + noise], 1) for noise in (0, 0.1 * random.normal(size=500)))
        low, high = difference_intervals(logits, others, labels, ONE, resamples=300)["accuracy"]
        alone = np.sqrt(0.7 * 0.3 / 500) * 2 * 1.96
        assert high - low < alone / 2

    def test_numbers(self):
        labels = np.linspace(0, 1, 60, dtype=np.float32)
        logits, others = labels[:, None] + 0.1, labels[:, None] + 0.2
        found = difference_intervals(logits, others, labels, NUMBER, resamples=30)
        assert found["mean_absolute_error"] == pytest.approx([0.1, 0.1], abs=1e-6)

import numpy as np
import pytest

from tf_finetune.config import ProblemType
from tf_finetune.evaluation.metric_intervals import difference_intervals
from tf_finetune.evaluation.paired import change, refused, slice_changes, worse_beyond_chance

ONE, NUMBER = ProblemType.SINGLE_LABEL_CLASSIFICATION, ProblemType.REGRESSION


def answers(both=150, won=0, lost=0, neither=10):
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
        worse, same = change(before, before + np.linspace(0.2, 0.4, 50)), change(before, before)
        assert (worse.better, worse.worse, same.better, same.worse) == (0, 50, 0, 0)
        assert worse.chance < 1e-6
        assert same.chance == 1

    def test_errors_all_grown_alike(self):
        before = np.linspace(0, 1, 9) * 8
        assert change(before, before + 0.5).chance == 0

    def test_many_errors_a_little_smaller_and_some_far_larger_are_worse(self):
        random = np.random.default_rng(0)
        before = random.random(2000)
        after = before * 0.99
        after[:100] = before[:100] * 100
        found = change(before, after)
        assert found.better > found.worse
        assert found.chance < 0.001


class TestSlices:
    def test_a_slice_that_got_worse_is_found_where_the_whole_did_not(self):
        random = np.random.default_rng(0)
        before = random.random(2000) < 0.85
        after = before.copy()
        small = np.arange(2000) < 100
        after[np.flatnonzero(small & before)[:20]] = False
        after[np.flatnonzero(~small & ~before)[:25]] = True
        overall = change(before, after)
        found = slice_changes(before, after, {("product", "a"): small, ("product", "b"): ~small})
        assert worse_beyond_chance(overall, found) == (False, {("product", "a"): True, ("product", "b"): False})

    def test_few_examples_are_left_out(self):
        before, after = answers()
        assert slice_changes(before, after, {("n", "few"): np.arange(160) < 29}) == {}

    def test_equal_models_are_called_worse_in_one_case_of_twenty(self):
        """All tests of a comparison together: of 200 comparisons 10 are expected at most."""
        called = 0
        for seed in range(200):
            random = np.random.default_rng(seed)
            before, after = (random.random(1000) < 0.85 for _ in range(2))
            part = np.arange(1000) % 5
            found = slice_changes(before, after, {("part", str(k)): part == k for k in range(5)})
            in_all, of_slices = worse_beyond_chance(change(before, after), found)
            called += in_all or any(of_slices.values())
        assert called <= 18  # 2.6 standard deviations above


class TestRefused:
    def reasons(self, both, slices=(), gain=(-0.01, 0.01), margin=None, metric="accuracy"):
        return refused(change(*both), dict(slices), gain, metric=metric, margin=margin)

    def test_nothing_speaks_against_equal_models(self):
        assert self.reasons(answers(won=3, lost=3)) == []

    def test_worse_beyond_chance(self):
        (reason,) = self.reasons(answers(won=1, lost=20))
        assert reason.startswith("it is worse beyond chance: worse in 20 examples and better in 1, p ")

    def test_too_few_examples(self):
        assert self.reasons(answers(both=50)) == ["60 examples are too few to say, 100 are needed"]

    def test_a_margin_has_to_be_ruled_out(self):
        both = answers(won=3, lost=3)
        assert self.reasons(both, gain=(-0.01, 0.02), margin=0.02) == []
        (reason,) = self.reasons(both, gain=(-0.03, 0.02), margin=0.02)
        assert reason == "its accuracy may be worse by more than 0.02: by up to 0.0300"
        (reason,) = self.reasons(both, gain=None, margin=0.02)
        assert reason.endswith("no interval says by how much")

    def test_a_metric_that_is_worse_where_the_answers_are_not(self):
        (reason,) = self.reasons(answers(won=3, lost=3), gain=(-0.03, -0.01), metric="f1")
        assert reason == "its f1 is worse beyond chance, by 0.0100 to 0.0300"

    def test_a_slice(self):
        found = slice_changes(*answers(both=0, won=0, lost=30, neither=10), {("label", "pos"): np.ones(40, bool)})
        assert self.reasons(answers(), found) == ["it is worse where label is pos: 0.7500 before, 0.0000 now"]


class TestDifferences:
    def test_examples_hard_for_both_do_not_widen_it(self):
        random = np.random.default_rng(0)
        labels = random.integers(2, size=500)
        margin = (2 * labels - 1) + 2 * random.normal(size=500)
        logits, others = (np.stack([np.zeros(500), margin + noise], 1) for noise in (0, 0.1 * random.normal(size=500)))
        found = difference_intervals(logits, others, labels, ONE, resamples=300)
        alone = np.sqrt(0.7 * 0.3 / 500) * 2 * 1.96
        for name in ("accuracy", "f1"):
            low, high = found[name]
            assert high - low < alone / 2

    def test_numbers(self):
        labels = np.linspace(0, 1, 60, dtype=np.float32)
        logits, others = labels[:, None] + 0.1, labels[:, None] + 0.2 + np.linspace(0, 1e-3, 60)[:, None]
        found = difference_intervals(logits, others, labels, NUMBER, resamples=30)
        assert found["mean_absolute_error"] == pytest.approx([0.1, 0.1], abs=2e-3)

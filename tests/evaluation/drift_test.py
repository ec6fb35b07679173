import dataclasses

import numpy as np
import pytest
from scipy import optimize, stats

from tf_finetune.evaluation import drift
from tf_finetune.evaluation.drift import (
    POOLED,
    UNSEEN,
    Verdict,
    compare_classes,
    compare_counts,
    compare_numbers,
    jensen_shannon,
    psi,
    verdict,
    worst,
)
from tf_finetune.evaluation.intervals import holm

NAMES = ["billing", "praise", "technical"]


def lengths(random, size, *, mean=25):
    """Whole numbers with many ties, as tokens a text are."""
    return 3.0 + random.poisson(random.gamma(4, mean / 4, size))


def unknown_shares(random, size, *, some=0.1):
    """Mostly exactly 0."""
    return np.where(random.random(size) < some, random.integers(1, 5, size) / 20, 0.0)


def classes(random, size, *, shares=(0.5, 0.3, 0.2)):
    return random.choice(NAMES, size, p=shares).tolist()


def judged(random, sizes, **changes):
    """The verdict on texts of which only what is in `changes` differs."""
    found = [
        compare_numbers(lengths(random, sizes[0]), lengths(random, sizes[1], **changes.get("lengths", {})), seed=0),
        compare_numbers(
            unknown_shares(random, sizes[0]), unknown_shares(random, sizes[1], **changes.get("unknown", {})), seed=0
        ),
        compare_classes(classes(random, sizes[0]), classes(random, sizes[1], **changes.get("classes", {})), seed=0),
        compare_numbers(random.beta(8, 2, sizes[0]), random.beta(8, changes.get("unsure", 2), sizes[1]), seed=0),
    ]
    p_values = holm([divergence.p_value for divergence in found])
    return [verdict(divergence, p_value) for divergence, p_value in zip(found, p_values, strict=True)]


class TestVerdicts:
    @pytest.mark.parametrize("sizes", [(100, 100), (100, 2000), (1000, 150), (1000, 1000)])
    def test_nothing_is_found_where_nothing_has_drifted(self, sizes):
        for seed in range(20):
            found = judged(np.random.default_rng(seed), sizes)
            assert worst(found) is Verdict.STABLE, seed

    @pytest.mark.parametrize(
        ("changes", "drifted"),
        [
            ({"lengths": {"mean": 50}}, 0),
            ({"unknown": {"some": 0.6}}, 1),
            ({"classes": {"shares": (0.2, 0.3, 0.5)}}, 2),
            ({"unsure": 6}, 3),
        ],
        ids=["lengths", "unknown", "classes", "unsure"],
    )
    def test_what_has_drifted_is_found_and_nothing_else(self, changes, drifted):
        expected = [Verdict.STABLE] * 4
        expected[drifted] = Verdict.MAJOR
        for seed in range(20):
            assert judged(np.random.default_rng(seed), (400, 400), **changes) == expected, seed

    def test_a_fixed_limit_would_have_cried_wolf(self):
        """The same small samples without the p-value: chance alone passes 0.1 in most."""
        measured = []
        for seed in range(20):
            random = np.random.default_rng(seed)
            found = compare_numbers(lengths(random, 100), lengths(random, 100), seed=0)
            measured.append(psi(np.array(found.reference), np.array(found.new)))
        assert np.median(measured) > drift.MODERATE

    def test_a_significant_but_small_drift_is_none(self):
        random = np.random.default_rng(0)
        found = compare_numbers(random.normal(size=2000), random.normal(0.2, size=2000), seed=0)
        assert found.p_value < drift.SIGNIFICANCE
        assert verdict(found, found.p_value) is Verdict.STABLE

    @pytest.mark.parametrize(("true", "texts", "found"), [(0.25, 100, 0.2), (0.25, 200, 0.8), (0.4, 100, 0.6)])
    def test_what_so_few_texts_find(self, true, texts, found):
        """What FEWEST_TEXTS and the README say, of 100 pairs of samples and a p-value that is one of four."""

        def psi_of(shift):
            p, q = (np.diff([0, *stats.norm.cdf(stats.norm.ppf(np.arange(1, 10) / 10) - m), 1]) for m in (0, shift))
            return ((p - q) * np.log(p / q)).sum()

        shift = optimize.brentq(lambda shift: psi_of(shift) - true, 0.01, 2)
        drifted = 0
        for seed in range(100):
            random = np.random.default_rng(seed)
            one = compare_numbers(random.normal(size=texts), random.normal(shift, size=texts), seed=seed)
            drifted += verdict(one, 4 * one.p_value) is not Verdict.STABLE
        assert drifted / 100 == pytest.approx(found, abs=0.1)

    @pytest.mark.parametrize(
        ("index", "p_adjusted", "expected"),
        [
            (0.0999, 0.0, Verdict.STABLE),
            (0.1, 0.0099, Verdict.MODERATE),
            (0.25, 0.0099, Verdict.MAJOR),
            (0.25, 0.01, Verdict.STABLE),
        ],
    )
    def test_limits(self, index, p_adjusted, expected):
        found = dataclasses.replace(compare_counts([10, 10], [10, 10], ["a", "b"], seed=0), psi=index)
        assert verdict(found, p_adjusted) is expected

    def test_worst(self):
        assert worst([Verdict.STABLE, Verdict.MAJOR, Verdict.MODERATE]) is Verdict.MAJOR
        assert worst([Verdict.STABLE, Verdict.MODERATE]) is Verdict.MODERATE


def test_p_values_are_as_often_small_as_they_say():
    """Of 300 pairs of samples of one population as many below 0.1 as a binomial of 0.1 gives in all but 1 of 1,000
    cases: bins that the reference chose make the permutation test no worse than that."""
    p_values = []
    for seed in range(300):
        random = np.random.default_rng(seed)
        p_values.append(compare_numbers(random.normal(size=200), random.normal(size=500), seed=seed).p_value)
    low, high = stats.binom.ppf([0.0005, 0.9995], 300, 0.1)
    assert low <= np.count_nonzero(np.array(p_values) < 0.1) <= high


class TestIntervals:
    """Counted over 200 drawn pairs of samples: how often an interval holds the divergence of the two populations, both
    in the bins of that pair. 95% are asked for; where little has drifted they cover more, because none is below 0."""

    def populations(self, edges, shift):
        return (np.diff([0, *stats.norm.cdf(edges - mean), 1]) for mean in (0, shift))

    def coverage(self, sizes, shift):
        covered = np.zeros(2)
        for seed in range(200):
            random = np.random.default_rng(seed)
            reference, new = random.normal(size=sizes[0]), random.normal(shift, size=sizes[1])
            found = compare_numbers(reference, new, seed=seed)
            p, q = self.populations(drift._edges(reference), shift)
            middle = (p + q) / 2
            index = ((p - q) * np.log(p / q)).sum()
            bits = (p * np.log2(p / middle) + q * np.log2(q / middle)).sum() / 2
            covered += [
                low <= true <= high for true, (low, high) in ((index, found.psi_interval), (bits, found.js_interval))
            ]
        return covered / 200

    @pytest.mark.parametrize(("sizes", "shift"), [((200, 200), 0.6), ((200, 1000), 0.6), ((1000, 1000), 0.3)])
    def test_they_cover_the_truth_about_as_often_as_they_say(self, sizes, shift):
        assert np.all(self.coverage(sizes, shift) >= 0.91)

    def test_they_are_no_wider_than_they_need_be(self):
        """An interval that always covers says nothing: with 1,000 on either side some of 200 must miss."""
        assert np.all(self.coverage((1000, 1000), 0.6) <= 0.99)

    def test_of_classes(self):
        p, q = np.array([0.5, 0.3, 0.2]), np.array([0.35, 0.45, 0.2])
        true, covered = ((p - q) * np.log(p / q)).sum(), 0
        random = np.random.default_rng(0)
        for seed in range(200):
            counts = (random.multinomial(500, shares) for shares in (p, q))
            low, high = compare_counts(*counts, NAMES, seed=seed).psi_interval
            covered += low <= true <= high
        assert covered / 200 >= 0.91

    def test_the_estimate_has_no_bias_worth_a_word(self):
        """Without drift PSI alone is (bins - 1) (1 / n + 1 / m), here 0.09, on average."""
        found = []
        for seed in range(100):
            random = np.random.default_rng(seed)
            found.append(compare_numbers(random.normal(size=200), random.normal(size=200), seed=seed))
        raw = np.mean([psi(np.array(one.reference), np.array(one.new)) for one in found])
        assert raw == pytest.approx(9 * (1 / 200 + 1 / 200), rel=0.15)
        assert np.mean([one.psi for one in found]) < raw / 3


class TestBins:
    def test_numbers_are_shared_out_evenly(self):
        found = compare_numbers(np.arange(1000.0), np.arange(500.0), seed=0)
        assert found.reference == (100,) * 10
        assert found.new == (100,) * 5 + (0,) * 5
        assert found.bins[:2] == ("up to 99", "up to 199")
        assert found.bins[-1] == "above 899"

    @pytest.mark.parametrize("most", [0.0, 0.5, 1.0])
    def test_ties_merge_bins_and_leave_none_empty(self, most):
        """Nine of ten are one number, at either end or in the middle."""
        reference = np.concatenate([np.full(900, most), np.linspace(0.01, 0.99, 100)])
        found = compare_numbers(reference, reference, seed=0)
        assert min(found.reference) > 0
        assert sum(found.reference) == 1000
        assert 2 <= len(found.bins) <= 3
        assert found.psi == 0

    def test_two_numbers_are_two_bins(self):
        found = compare_numbers(np.array([1.0] * 99 + [2.0]), np.array([1.0] * 50 + [3.0] * 50), seed=0)
        assert found.bins == ("up to 1", "above 1")
        assert (found.reference, found.new) == ((99, 1), (50, 50))

    def test_a_constant_is_stable_where_it_stays(self):
        found = compare_numbers(np.zeros(200), np.zeros(300), seed=0)
        assert (found.psi, found.js, found.p_value) == (0, 0, 1)
        assert found.psi_interval == (0, 0)

    def test_a_constant_that_does_not_stay_has_drifted(self):
        found = compare_numbers(np.zeros(200), np.array([0.0] * 120 + [0.3] * 80), seed=0)
        assert found.bins == ("0", "other")
        assert found.new == (120, 80)
        assert verdict(found, found.p_value) is Verdict.MAJOR

    def test_rare_classes_share_a_bin(self):
        found = compare_classes(["a"] * 90 + ["b"] * 5 + ["c"] * 4 + ["d"], ["a"] * 50 + ["d"] * 50, seed=0)
        assert found.bins == ("a", "b", POOLED)
        assert (found.reference, found.new) == ((90, 5, 5), (50, 0, 50))

    def test_a_class_that_the_reference_has_not(self):
        found = compare_classes(["a"] * 100 + ["b"] * 100, ["a"] * 60 + ["b"] * 60 + ["new"] * 80, seed=0)
        assert found.bins == ("a", "b", POOLED)
        assert found.reference == (100, 100, 0)
        assert np.isfinite([found.psi, *found.psi_interval]).all()
        assert verdict(found, found.p_value) is Verdict.MAJOR

    def test_without_rare_classes_nothing_is_pooled(self):
        assert compare_classes(["a", "b"] * 50, ["a", "b"] * 60, seed=0).bins == ("a", "b")

    def test_one_class_on_both_sides(self):
        found = compare_classes(["a"] * 100, ["a"] * 100, seed=0)
        assert (found.bins, found.psi, found.p_value) == (("a",), 0, 1)


class TestMeasures:
    def test_psi_by_hand(self):
        p, q = (60 + UNSEEN) / 101, (30 + UNSEEN) / 101
        expected = (p - q) * np.log(p / q) + (q - p) * np.log((1 - p) / (1 - q))
        assert psi(np.array([60, 40]), np.array([30, 70])) == pytest.approx(expected)

    def test_psi_is_the_same_both_ways_and_0_of_equals(self):
        one, other = np.array([5, 20, 75]), np.array([30, 30, 40])
        assert psi(one, other) == pytest.approx(psi(other, one))
        assert psi(one, one) == 0

    def test_jensen_shannon_goes_from_0_to_1_bit(self):
        assert jensen_shannon(np.array([3, 30]), np.array([10, 100])) == 0
        assert jensen_shannon(np.array([10, 0]), np.array([0, 5])) == pytest.approx(1)

    def test_jensen_shannon_by_hand(self):
        """Of (1, 0) and (1/2, 1/2): H(3/4, 1/4) - 1/2."""
        entropy = -(0.75 * np.log2(0.75) + 0.25 * np.log2(0.25))
        assert jensen_shannon(np.array([8, 0]), np.array([4, 4])) == pytest.approx(entropy - 0.5)

    def test_the_same_seed_gives_the_same_numbers(self):
        one, again = (compare_counts([60, 40], [40, 60], ["a", "b"], seed=3) for _ in range(2))
        assert one == again

    def test_p_value_is_that_of_all_tables(self):
        """Of two classes Fisher's exact test counts the same tables, where both sides are of one size."""
        found = compare_counts([60, 40], [45, 55], ["a", "b"], seed=0)
        exact = stats.fisher_exact([[60, 40], [45, 55]]).pvalue
        assert found.p_value == pytest.approx(exact, abs=0.01)

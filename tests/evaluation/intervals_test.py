import numpy as np
import pytest

from tf_finetune.evaluation import intervals


class TestOfShare:
    def test_by_hand(self):
        """Wilson 1927: centre (p + z²/2n) / (1 + z²/n), half width z sqrt(p(1-p)/n + z²/4n²) / (1 + z²/n)."""
        z, n, p = 1.959964, 40, 0.25
        centre, half = p + z**2 / (2 * n), z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
        expected = [(centre - half) / (1 + z**2 / n), (centre + half) / (1 + z**2 / n)]
        assert intervals.of_share(10, 40) == pytest.approx(expected, abs=1e-6)

    @pytest.mark.parametrize(("count", "end"), [(0, 0), (7, 1)])
    def test_none_and_all_leave_room(self, count, end):
        low, high = intervals.of_share(count, 7)
        assert end in (low, high)
        assert low < high


class TestByBootstrap:
    def test_of_a_mean_it_is_about_two_standard_errors(self):
        values = np.random.default_rng(0).normal(size=2000)
        low, high = intervals.by_bootstrap([values], np.mean)
        expected = values.mean() + 1.96 * values.std() / np.sqrt(2000) * np.array([-1, 1])
        assert [low, high] == pytest.approx(expected, abs=0.005)

    def test_values_all_the_same_have_no_width(self):
        assert intervals.by_bootstrap([np.full(20, 0.5)], np.mean) == [0.5, 0.5]

    def test_two_samples_are_drawn_apart(self):
        random = np.random.default_rng(0)

        def difference(first, second, axis=-1):
            return first.mean(axis=axis) - second.mean(axis=axis)

        low, high = intervals.by_bootstrap([random.normal(1, 1, 400), random.normal(0, 2, 100)], difference)
        assert low < 1 < high
        assert high - low == pytest.approx(2 * 1.96 * np.sqrt(1 / 400 + 4 / 100), rel=0.2)

    def test_the_same_seed_gives_the_same(self):
        values = np.random.default_rng(0).normal(size=50)
        assert intervals.by_bootstrap([values], np.mean, seed=1) == intervals.by_bootstrap([values], np.mean, seed=1)
        assert intervals.by_bootstrap([values], np.mean, seed=1) != intervals.by_bootstrap([values], np.mean, seed=2)

    def test_many_values_take_no_more_memory(self, monkeypatch):
        monkeypatch.setattr(intervals, "MOST_DRAWN", 500)
        sizes = []

        def mean(values, axis=-1):
            sizes.append(values.size)
            return values.mean(axis=axis)

        intervals.by_bootstrap([np.arange(100.0)], mean)
        assert max(sizes) == 500


def test_holm_by_hand():
    assert intervals.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert intervals.holm([0.9, 0.6]) == [1, 1]
    assert intervals.holm([]) == []

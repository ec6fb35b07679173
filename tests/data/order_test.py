import numpy as np
import pytest

from tf_finetune.data.order import WINDOW_BATCHES, BatchOrder, evaluation_order, training_order

# Below, at and above one batch and one window of 4-example batches, and sizes that leave remainders.
SIZES = [1, 2, 3, 4, 5, 7, 8, 9, 4 * WINDOW_BATCHES - 1, 4 * WINDOW_BATCHES, 4 * WINDOW_BATCHES + 1, 1234]


def realistic_lengths(size, seed=0):
    """Token counts as reviews have them: log-normal, cut at 128."""
    drawn = np.random.default_rng(seed).lognormal(mean=3.2, sigma=0.6, size=size)
    return np.clip(drawn, 3, 128).astype(np.int64)


def batches_of(order):
    return [order.examples[start:end] for start, end in zip(order.starts[:-1], order.starts[1:], strict=True)]


def padding_share(order, lengths):
    padded = sum(len(batch) * lengths[batch].max() for batch in batches_of(order))
    return 1 - lengths.sum() / padded


class TestTrainingOrder:
    @pytest.mark.parametrize("size", SIZES)
    @pytest.mark.parametrize("batch_size", [1, 4, 32])
    def test_every_example_exactly_once(self, size, batch_size):
        order = training_order(realistic_lengths(size), batch_size=batch_size, seed=1, epoch=0)
        np.testing.assert_array_equal(np.sort(order.examples), np.arange(size))

    @pytest.mark.parametrize("size", SIZES)
    @pytest.mark.parametrize("batch_size", [1, 4, 32])
    def test_batches_are_full_but_one(self, size, batch_size):
        order = training_order(realistic_lengths(size), batch_size=batch_size, seed=1, epoch=0)
        sizes = np.diff(order.starts)
        assert len(order) == len(sizes) == -(-size // batch_size)
        assert sorted(sizes)[1:] == [batch_size] * (len(sizes) - 1)

    def test_same_seed_and_epoch_same_order(self):
        lengths = realistic_lengths(500)
        first, second = (training_order(lengths, batch_size=8, seed=5, epoch=2) for _ in range(2))
        np.testing.assert_array_equal(first.examples, second.examples)
        np.testing.assert_array_equal(first.starts, second.starts)

    @pytest.mark.parametrize(("seed", "epoch"), [(5, 3), (6, 2), (2, 5)], ids=["epoch", "seed", "swapped"])
    def test_other_seed_or_epoch_other_order(self, seed, epoch):
        lengths = realistic_lengths(500)
        first = training_order(lengths, batch_size=8, seed=5, epoch=2)
        second = training_order(lengths, batch_size=8, seed=seed, epoch=epoch)
        assert (first.examples == second.examples).mean() < 0.05

    def test_other_epoch_has_other_batches_not_only_another_order_of_them(self):
        lengths = realistic_lengths(5000)
        first, second = (training_order(lengths, batch_size=32, seed=0, epoch=epoch) for epoch in (0, 1))
        together = {frozenset(batch.tolist()) for batch in batches_of(first)}
        assert not together & {frozenset(batch.tolist()) for batch in batches_of(second)}

    def test_lengths_are_not_changed(self):
        lengths = realistic_lengths(100)
        training_order(lengths, batch_size=8, seed=0, epoch=0)
        np.testing.assert_array_equal(lengths, realistic_lengths(100))

    @pytest.mark.parametrize("batch_size", [16, 32])
    def test_little_padding(self, batch_size):
        lengths = realistic_lengths(10_000)
        order = training_order(lengths, batch_size=batch_size, seed=0, epoch=0)
        shuffled = BatchOrder(np.random.default_rng(0).permutation(len(lengths)), order.starts)
        assert padding_share(order, lengths) < 0.06 < padding_share(shuffled, lengths) / 5

    def test_length_and_position_are_unrelated(self):
        lengths = realistic_lengths(10_000)
        correlations = []
        for epoch in range(10):
            order = training_order(lengths, batch_size=32, seed=0, epoch=epoch)
            means = [lengths[batch].mean() for batch in batches_of(order)]
            ranks = np.argsort(np.argsort(means))
            correlations.append(np.corrcoef(ranks, np.arange(len(ranks)))[0, 1])
        # 313 batches: the deviation of one correlation is 0.057, of the mean of ten 0.018.
        assert abs(np.mean(correlations)) < 0.06
        assert max(np.abs(correlations)) < 0.25

    def test_small_batch_stands_anywhere(self):
        lengths = realistic_lengths(101)
        places = {
            int(np.argmin(np.diff(training_order(lengths, batch_size=10, seed=0, epoch=epoch).starts)))
            for epoch in range(60)
        }
        assert len(places) > 5


class TestEvaluationOrder:
    @pytest.mark.parametrize("size", SIZES)
    def test_every_example_exactly_once_longest_first(self, size):
        lengths = realistic_lengths(size)
        order = evaluation_order(lengths, batch_size=4)
        np.testing.assert_array_equal(np.sort(order.examples), np.arange(size))
        assert (np.diff(lengths[order.examples]) <= 0).all()

    @pytest.mark.parametrize("size", SIZES)
    def test_only_the_last_batch_is_smaller(self, size):
        sizes = np.diff(evaluation_order(realistic_lengths(size), batch_size=4).starts)
        assert set(sizes[:-1]) <= {4}
        assert 1 <= sizes[-1] <= 4

    def test_equal_lengths_keep_their_order(self):
        order = evaluation_order(np.array([5, 7, 5, 7]), batch_size=3)
        assert order.examples.tolist() == [1, 3, 0, 2]
        assert order.starts.tolist() == [0, 3, 4]

    def test_fewer_examples_than_a_batch(self):
        order = evaluation_order(np.array([3, 9]), batch_size=64)
        assert len(order) == 1
        assert order.examples.tolist() == [1, 0]

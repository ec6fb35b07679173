import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tf_finetune.data.order import (
    PADDING,
    WINDOW_BATCHES,
    BatchOrder,
    evaluation_order,
    shape_set,
    training_order,
)

# Below, at and above one batch and one window of 4-example batches, and sizes that leave remainders.
SIZES = [1, 2, 3, 4, 5, 7, 8, 9, 4 * WINDOW_BATCHES - 1, 4 * WINDOW_BATCHES, 4 * WINDOW_BATCHES + 1, 1234]


def realistic_lengths(size, seed=0):
    """Token counts as reviews have them: log-normal, cut at 128."""
    drawn = np.random.default_rng(seed).lognormal(mean=3.2, sigma=0.6, size=size)
    return np.clip(drawn, 3, 128).astype(np.int64)


def batches_of(order):
    return [order.examples[start:end] for start, end in zip(order.starts[:-1], order.starts[1:], strict=True)]


def tokens_per_useful_token(order, lengths):
    return order.tokens / lengths.sum()


def imdb_lengths(size, seed=0):
    """Token counts as published for IMDB: median 220, 88% over 128, 41% over 256, 13% over 512; cut at 512 here."""
    shares, counts = [0, 0.12, 0.5, 0.59, 0.87, 0.97, 1], np.log([11, 128, 220, 256, 512, 900, 3045])
    drawn = np.exp(np.interp(np.random.default_rng(seed).random(size), shares, counts))
    return np.minimum(drawn.astype(np.int64), 512)


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

    @pytest.mark.parametrize(("draw", "most"), [(realistic_lengths, 1.06), (imdb_lengths, 1.03)])
    @pytest.mark.parametrize(
        "options", [{"batch_size": 16}, {"batch_size": 32}, {"batch_size": 1, "batch_tokens": 1024}]
    )
    def test_little_padding(self, draw, most, options):
        lengths = draw(10_000)
        order = training_order(lengths, seed=0, epoch=0, **options)
        assert tokens_per_useful_token(order, lengths) < most
        shuffled = np.random.default_rng(0).permutation(len(lengths))
        widths = np.array([lengths[batch].max() for batch in np.split(shuffled, order.starts[1:-1])])
        assert tokens_per_useful_token(BatchOrder(shuffled, order.starts, widths), lengths) > 1.4

    def test_width_is_the_longest_text_of_the_batch(self):
        lengths = realistic_lengths(1000)
        order = training_order(lengths, batch_size=7, seed=0, epoch=0)
        assert order.widths.tolist() == [lengths[batch].max() for batch in batches_of(order)]

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


class TestTokenBudget:
    @pytest.mark.parametrize("batch_tokens", [128, 1000, 4096])
    def test_is_kept_and_used(self, batch_tokens):
        lengths = realistic_lengths(5000)
        order = training_order(lengths, batch_size=1, batch_tokens=batch_tokens, seed=0, epoch=0)
        computed = np.diff(order.starts) * order.widths
        assert computed.max() <= batch_tokens
        assert np.median(computed) > 0.85 * batch_tokens

    def test_longer_texts_are_batches_of_their_own(self):
        order = training_order(np.array([5, 50, 5, 60]), batch_size=1, batch_tokens=20, seed=0, epoch=0)
        assert sorted(order.sizes) == [1, 1, 2]


class TestShapes:
    def test_set_is_the_best_there_is(self):
        """Against trying every set of three."""
        lengths = realistic_lengths(300)
        candidates = range(8, lengths.max() + 8, 8)

        def computed(shapes):
            return sum(shapes[np.searchsorted(shapes, length)] for length in lengths)

        best = min(computed((*some, candidates[-1])) for some in itertools.combinations(candidates[:-1], 2))
        shapes = shape_set(lengths, num_shapes=3, longest=512)
        assert len(shapes) == 3
        assert computed(shapes) == best

    def test_no_more_than_there_are_lengths(self):
        assert shape_set(np.array([3, 9, 9]), num_shapes=8, longest=512) == (8, 16)

    def test_none_is_beyond_the_longest(self):
        assert shape_set(np.array([3, 9, 12]), num_shapes=2, longest=13) == (8, 13)

    def test_one(self):
        assert shape_set(np.array([3, 9, 33]), num_shapes=1, longest=512) == (40,)

    @pytest.mark.parametrize("options", [{"batch_size": 32}, {"batch_size": 1, "batch_tokens": 2048}])
    def test_batches_have_them(self, options):
        lengths = realistic_lengths(3000)
        shapes = shape_set(lengths, num_shapes=8, longest=512)
        order = training_order(lengths, seed=0, epoch=0, shapes=shapes, **options)
        assert len({(len(batch), width) for batch, width in zip(batches_of(order), order.widths, strict=True)}) <= 8
        assert set(order.widths.tolist()) <= set(shapes)
        for batch, width in zip(batches_of(order), order.widths, strict=True):
            assert lengths[batch[batch != PADDING]].max() <= width

    def test_evaluation_has_them_longest_first(self):
        lengths = realistic_lengths(100)
        order = evaluation_order(lengths, batch_size=8, shapes=(32, 128))
        assert set(np.diff(order.starts)) == {8}
        assert order.widths.tolist() == sorted(order.widths.tolist(), reverse=True)
        assert order.examples[-8:].max() >= 0

    def test_batches_of_all_shapes_are_mixed(self):
        order = training_order(realistic_lengths(3000), batch_size=32, seed=0, epoch=0, shapes=(16, 32, 64, 128))
        assert abs(np.corrcoef(order.widths, np.arange(len(order)))[0, 1]) < 0.3


@settings(max_examples=300, deadline=None)
@given(
    lengths=st.lists(st.integers(2, 200), min_size=1, max_size=400),
    batch_size=st.integers(1, 40),
    batch_tokens=st.one_of(st.none(), st.integers(1, 5000)),
    num_shapes=st.integers(0, 8),
    devices=st.sampled_from([1, 2, 8]),
    epoch=st.integers(0, 3),
)
def test_every_epoch_has_each_example_once_in_equal_parts(
    lengths, batch_size, batch_tokens, num_shapes, devices, epoch
):
    lengths = np.array(lengths)
    shapes = shape_set(lengths, num_shapes=num_shapes, longest=512) if num_shapes else None
    options = {"batch_size": batch_size, "shapes": shapes, "rows_multiple_of": devices}
    orders = [
        training_order(lengths, batch_tokens=batch_tokens, seed=3, epoch=epoch, **options),
        evaluation_order(lengths, **options),
    ]
    for order in orders:
        assert sorted(order.examples[order.examples != PADDING]) == list(range(len(lengths)))
        assert order.sizes.sum() == len(lengths)
        assert (order.sizes > 0).all()
        assert (order.rows % devices == 0).all()


@pytest.mark.parametrize("replicas", [2, 8])
@pytest.mark.parametrize("shapes", [None, (16, 64, 128)], ids=["windows", "shapes"])
def test_batches_for_several_devices_are_those_of_one_filled_up(replicas, shapes):
    lengths = realistic_lengths(501)

    def orders(rows_multiple_of):
        options = {"shapes": shapes, "rows_multiple_of": rows_multiple_of}
        for budget in (None, 1000):
            yield training_order(lengths, batch_size=13, batch_tokens=budget, seed=0, epoch=1, **options)
        yield evaluation_order(lengths, batch_size=13, **options)

    for plain, filled in zip(orders(1), orders(replicas), strict=True):
        assert (plain.rows % replicas).any()
        assert filled.rows.tolist() == (-(-plain.rows // replicas) * replicas).tolist()
        assert filled.widths.tolist() == plain.widths.tolist()
        for batch, expected in zip(batches_of(filled), batches_of(plain), strict=True):
            assert batch[: len(expected)].tolist() == expected.tolist()
            assert (batch[len(expected) :] == PADDING).all()


class TestWork:
    ORDER = BatchOrder(examples=np.array([2, 0, 1, PADDING]), starts=np.array([0, 1, 4]), widths=np.array([5, 8]))

    def test_rows_are_those_that_are_computed(self):
        assert self.ORDER.rows.tolist() == [1, 3]

    def test_useful_tokens_are_those_of_the_texts(self):
        assert self.ORDER.useful_tokens(np.array([7, 3, 5], dtype=np.int32)).tolist() == [5, 10]

    def test_without_padding_all_tokens_are_useful(self):
        order = training_order(np.full(10, 6), batch_size=4, seed=0, epoch=0)
        assert order.useful_tokens(np.full(10, 6)).sum() == order.tokens == 60


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

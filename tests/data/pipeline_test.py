import subprocess
import sys
import time

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_finetune.data.order import PADDING, BatchOrder, evaluation_order, shape_set, training_order
from tf_finetune.data.pipeline import CHUNK, batches, timed
from tf_finetune.data.tokenized import TokenizedExamples


def random_examples(size, seed=0):
    random = np.random.default_rng(seed)
    token_ids = [random.integers(1, 1000, size=length).tolist() for length in random.integers(2, 30, size=size)]
    return token_ids, random.integers(0, 3, size=size).tolist()


def padded(token_ids, fill=0):
    width = max(len(ids) for ids in token_ids)
    return np.array([ids + [fill] * (width - len(ids)) for ids in token_ids])


@pytest.mark.parametrize(("size", "batch_size"), [(1, 4), (3, 4), (4, 4), (103, 8), (2 * CHUNK + 1, 1), (CHUNK, 1)])
@pytest.mark.parametrize("kind", ["training", "evaluation"])
def test_equals_a_plain_construction(size, batch_size, kind):
    token_ids, labels = random_examples(size)
    examples = TokenizedExamples.from_lists(token_ids, labels)
    if kind == "training":
        order = training_order(examples.lengths, batch_size=batch_size, seed=0, epoch=0)
    else:
        order = evaluation_order(examples.lengths, batch_size=batch_size)
    produced = list(batches(examples, order).as_numpy_iterator())
    assert len(produced) == len(order)
    for number, (inputs, batch_labels) in enumerate(produced):
        chosen = order.examples[order.starts[number] : order.starts[number + 1]].tolist()
        expected = padded([token_ids[index] for index in chosen])
        np.testing.assert_array_equal(inputs["input_ids"], expected)
        np.testing.assert_array_equal(inputs["attention_mask"], expected != 0)
        np.testing.assert_array_equal(inputs["token_type_ids"], np.zeros_like(expected))
        np.testing.assert_array_equal(batch_labels, [labels[index] for index in chosen])


@pytest.fixture
def two_batches():
    examples = TokenizedExamples.from_lists([[2, 7, 3], [2, 3], [2, 0, 0, 3]], [1, 0, 2])
    order = BatchOrder(examples=np.array([2, 1, 0]), starts=np.array([0, 2, 3]), widths=np.array([4, 3]))
    return batches(examples, order)


def test_each_batch_is_padded_to_its_own_longest(two_batches):
    shapes = [inputs["input_ids"].shape for inputs, _ in two_batches.as_numpy_iterator()]
    assert shapes == [(2, 4), (1, 3)]


def test_mask_counts_lengths_not_ids(two_batches):
    """Id 0 may stand inside a text."""
    inputs, _ = next(two_batches.as_numpy_iterator())
    assert inputs["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]


def test_cardinality_is_known(two_batches):
    assert int(two_batches.cardinality()) == 2


def test_specification(two_batches):
    inputs, labels = two_batches.element_spec
    assert sorted(inputs) == ["attention_mask", "input_ids", "token_type_ids"]
    assert {spec.dtype.name for spec in (*inputs.values(), labels)} == {"int32"}
    assert {name: spec.shape.rank for name, spec in inputs.items()} == dict.fromkeys(inputs, 2)


def test_iterates_again_the_same(two_batches):
    first, second = ([inputs["input_ids"].tolist() for inputs, _ in two_batches.as_numpy_iterator()] for _ in range(2))
    assert first == second


class TestWeights:
    def examples(self, **options):
        return TokenizedExamples.from_lists([[2, 7, 3], [2, 3], [2, 0, 0, 3]], [1, 0, 2], **options)

    def test_of_the_examples_come_third(self):
        order = BatchOrder(examples=np.array([2, 1, 0]), starts=np.array([0, 2, 3]), widths=np.array([4, 3]))
        made = list(batches(self.examples(weights=[0.5, 1, 2]), order).as_numpy_iterator())
        assert [weights.tolist() for _, _, weights in made] == [[2, 1], [0.5]]
        assert {weights.dtype.name for _, _, weights in made} == {"float32"}

    def test_padding_rows_weigh_nothing(self):
        order = BatchOrder(
            examples=np.array([0, PADDING, PADDING, 1]), starts=np.array([0, 2, 4]), widths=np.array([8, 8])
        )
        (inputs, labels, weights), (_, _, second) = batches(
            self.examples(weights=[0.5, 3, 1]), order
        ).as_numpy_iterator()
        assert inputs["input_ids"].tolist() == [[2, 7, 3, 0, 0, 0, 0, 0], [0] * 8]
        assert inputs["attention_mask"].tolist() == [[1, 1, 1, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0, 0]]
        assert labels.shape == (2,)
        assert weights.tolist() == [2 * 0.5, 0]  # of two rows one is an example
        assert second.tolist() == [0, 2 * 3]

    def test_shapes_are_few(self):
        token_ids, labels = random_examples(500)
        examples = TokenizedExamples.from_lists(token_ids, labels)
        shapes = shape_set(examples.lengths, num_shapes=3, longest=64)
        order = training_order(examples.lengths, batch_size=16, seed=0, epoch=0, shapes=shapes)
        made = list(batches(examples, order).as_numpy_iterator())
        assert {inputs["input_ids"].shape for inputs, _, _ in made} == {(16, length) for length in shapes}
        assert sum((weights > 0).sum() for _, _, weights in made) == 500
        assert all(weights.mean() == pytest.approx(1) for _, _, weights in made)


def test_type_ids_of_pairs():
    examples = TokenizedExamples.from_lists([[2, 7, 3, 8, 3], [2, 3, 3]], [1, 0], first_lengths=[3, 2])
    order = BatchOrder(examples=np.array([0, 1]), starts=np.array([0, 2]), widths=np.array([6]))
    inputs, _ = next(batches(examples, order).as_numpy_iterator())
    assert inputs["token_type_ids"].tolist() == [[0, 0, 0, 1, 1, 0], [0, 0, 1, 0, 0, 0]]


def test_labels_of_any_shape():
    examples = TokenizedExamples.from_lists([[2, 3], [2, 4, 3]], np.array([[0, 1, 1], [0, 0, 0]], np.float32))
    inputs_and_labels = batches(examples, evaluation_order(examples.lengths, batch_size=2))
    assert inputs_and_labels.element_spec[1].shape.as_list() == [None, 3]
    _, labels = next(inputs_and_labels.as_numpy_iterator())
    assert labels.tolist() == [[0, 0, 0], [0, 1, 1]]


@pytest.mark.parametrize("first", [0, 1, CHUNK - 1, CHUNK, CHUNK + 3, 150, 151])
def test_goes_on_with_any_batch(first):
    token_ids, labels = random_examples(151)
    examples = TokenizedExamples.from_lists(token_ids, labels)
    order = training_order(examples.lengths, batch_size=1, seed=0, epoch=0)
    whole = [inputs["input_ids"].tolist() for inputs, _ in batches(examples, order).as_numpy_iterator()]
    rest = batches(examples, order, first=first)
    assert int(rest.cardinality()) == 151 - first
    assert [inputs["input_ids"].tolist() for inputs, _ in rest.as_numpy_iterator()] == whole[first:]


@pytest.mark.parametrize("processes", [2, 3])
@pytest.mark.parametrize("first", [0, CHUNK - 1])
def test_the_parts_of_several_processes_are_the_whole_batches(processes, first):
    token_ids, labels = random_examples(12 * CHUNK)
    first_lengths = [1 + len(ids) // 2 for ids in token_ids]
    weights = np.linspace(0.5, 1.5, len(labels))
    examples = TokenizedExamples.from_lists(token_ids, labels, weights=weights, first_lengths=first_lengths)
    order = training_order(examples.lengths, batch_size=11, seed=0, epoch=0, rows_multiple_of=processes)
    parts = [
        batches(examples, order, first=first, part=(index, processes)).as_numpy_iterator() for index in range(processes)
    ]
    whole = batches(examples, order, first=first).as_numpy_iterator()
    for (inputs, labels, weights), *of_parts in zip(whole, *parts, strict=True):
        assert {len(part[1]) for part in of_parts} == {len(labels) // processes}
        joined = [np.concatenate(arrays) for arrays in zip(*(part[1:] for part in of_parts), strict=True)]
        np.testing.assert_array_equal(joined[0], labels)
        np.testing.assert_array_equal(joined[1], weights)
        for name, expected in inputs.items():
            np.testing.assert_array_equal(np.concatenate([part[0][name] for part in of_parts]), expected)


class TestTimed:
    """A slow source takes, and a slow consumer rests, 200 ms a batch: longer than a step, however busy the machine."""

    PAUSE, BATCHES = 0.2, 12

    @pytest.fixture
    def slow(self):
        def pause(number):
            time.sleep(self.PAUSE)
            return number

        # A map of plain operations would be made parallel by tf.data, and run ahead.
        options = tf.data.Options()
        options.experimental_optimization.map_parallelization = False
        made = tf.data.Dataset.range(self.BATCHES).map(lambda number: tf.numpy_function(pause, [number], tf.int64))
        return made.map(lambda number: tf.ensure_shape(number, [])).with_options(options)

    @pytest.fixture
    def fast(self):
        return tf.data.Dataset.range(self.BATCHES).prefetch(4)

    def share_waited(self, dataset, *, pause):
        dataset, waited = timed(dataset)
        iterator = iter(dataset)
        began = time.perf_counter()
        for _ in iterator:
            time.sleep(pause)
        return waited() / (time.perf_counter() - began)

    def test_a_slow_source_is_waited_for(self, slow):
        assert self.share_waited(slow, pause=0.0) > 0.8

    def test_a_fast_source_is_not(self, fast):
        assert self.share_waited(fast, pause=self.PAUSE) < 0.1

    def test_a_slow_source_whose_batches_are_made_ahead_is_not(self, slow):
        """The stamp is taken when the consumer asks, not before."""
        assert self.share_waited(slow.prefetch(4), pause=1.5 * self.PAUSE) < 0.3

    def test_nothing_is_asked_for_ahead(self, slow):
        """Neither tf.data nor an iterator takes elements before the consumer does."""
        dataset, waited = timed(slow)
        iterator = iter(dataset)
        next(iterator)
        time.sleep(3 * self.PAUSE)
        before = waited()
        next(iterator)
        assert waited() - before > 0.9 * self.PAUSE

    @pytest.mark.parametrize(
        ("source", "rest", "low", "high"),
        [("slow", 0.0, 0.5, 1.0), ("slow", PAUSE, 0.25, 0.7), ("fast", PAUSE, 0.0, 0.2)],
    )
    def test_in_fit(self, source, rest, low, high, request):
        """Of all steps but the first, which is traced. In the second case a fit that asked ahead would always wait."""

        class Clock(keras.callbacks.Callback):
            def on_train_batch_end(self, batch, logs=None):
                if batch == 0:
                    self.began, self.waited = time.perf_counter(), waited()
                else:
                    time.sleep(rest)

        dataset = request.getfixturevalue(source).map(lambda number: (tf.zeros((2, 3)), tf.zeros((2, 1))))
        dataset, waited = timed(dataset)
        model, clock = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)]), Clock()
        model.compile("sgd", "mse")
        model.fit(dataset, shuffle=False, verbose=0, callbacks=[clock])
        share = (waited() - clock.waited) / (time.perf_counter() - clock.began)
        assert low <= share <= high

    def test_batches_and_cardinality_are_the_same(self):
        token_ids, labels = random_examples(20)
        examples = TokenizedExamples.from_lists(token_ids, labels)
        order = training_order(examples.lengths, batch_size=8, seed=0, epoch=0)
        dataset, waited = timed(batches(examples, order))
        assert int(dataset.cardinality()) == len(order)
        assert dataset.element_spec == batches(examples, order).element_spec
        for (inputs, labels), (expected, expected_labels) in zip(dataset, batches(examples, order), strict=True):
            np.testing.assert_array_equal(inputs["input_ids"], expected["input_ids"])
            np.testing.assert_array_equal(labels, expected_labels)
        assert waited() > 0


@pytest.mark.parametrize("where", ["in_python", "between"])
def test_python_ends_while_a_pipeline_is_at_work(where):
    """As when a run is interrupted. Python's threads never come out of Python once it has ended, and tf.data waits."""
    code = f"""
import time
from tf_finetune.data import pipeline
from tf_finetune.data.order import evaluation_order
from tf_finetune.data.tokenized import TokenizedExamples

chunk = pipeline._chunk
if {where == "in_python"}:
    pipeline._chunk = lambda *args: (time.sleep(0.5), chunk(*args))[1]
examples = TokenizedExamples.from_lists([[5] * 4] * 1000, [0] * 1000)
kept = [iter(pipeline.batches(examples, evaluation_order(examples.lengths, batch_size=1)))]
kept.append(kept)
next(kept[0])
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0

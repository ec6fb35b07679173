import numpy as np
import pytest

from tf_finetune.data.order import BatchOrder, evaluation_order, training_order
from tf_finetune.data.pipeline import batches
from tf_finetune.data.tokenized import TokenizedExamples


def random_examples(size, seed=0):
    random = np.random.default_rng(seed)
    token_ids = [random.integers(1, 1000, size=length).tolist() for length in random.integers(2, 30, size=size)]
    return token_ids, random.integers(0, 3, size=size).tolist()


def padded(token_ids, fill=0):
    width = max(len(ids) for ids in token_ids)
    return np.array([ids + [fill] * (width - len(ids)) for ids in token_ids])


class TestTokenizedExamples:
    def test_from_lists(self):
        examples = TokenizedExamples.from_lists([[2, 7, 3], [2, 3]], [1, 0])
        assert examples.input_ids.tolist() == [2, 7, 3, 2, 3]
        assert examples.lengths.tolist() == [3, 2]
        assert examples.labels.tolist() == [1, 0]
        assert len(examples) == 2

    def test_types(self):
        examples = TokenizedExamples.from_lists([[2, 7, 3]], [1])
        assert (examples.input_ids.dtype, examples.lengths.dtype, examples.labels.dtype) == ("int32", "int64", "int32")


@pytest.mark.parametrize(("size", "batch_size"), [(1, 4), (3, 4), (4, 4), (103, 8)])
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
    return batches(examples, BatchOrder(examples=np.array([2, 1, 0]), starts=np.array([0, 2, 3])))


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

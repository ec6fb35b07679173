"""What an export computes, against the model itself."""

import numpy as np
import pytest
import tensorflow as tf

from tf_finetune.serving.graph import logits_by_length

TEXTS = ["a good film", "", "bad " * 50, "plot", "a long film with a short plot", "bad " * 20]


@pytest.fixture(scope="module")
def ragged(classifier):
    ids, _ = classifier.encode(TEXTS)
    return tf.ragged.constant(ids, dtype=tf.int32)


def logits_of(classifier, ids, type_ids=None, **options):
    return logits_by_length(classifier.model, ids, type_ids, num_labels=3, **options)


@pytest.mark.parametrize("tokens", [1, 30, 100, 10_000])
def test_groups_change_no_answer(classifier, ragged, tokens):
    np.testing.assert_allclose(logits_of(classifier, ragged, tokens=tokens), classifier.logits(TEXTS), atol=1e-5)


def test_a_group_is_padded_to_its_own_longest(ragged):
    shapes = []

    def model(inputs, training):
        shapes.append(tuple(inputs["input_ids"].shape))
        return tf.zeros([shapes[-1][0], 3])

    logits_by_length(model, ragged, None, num_labels=3, tokens=100)
    assert sorted((len(row) for row in ragged.to_list()), reverse=True) == [64, 62, 25, 11, 6, 2]
    assert shapes == [(1, 64), (1, 62), (4, 25)]


def test_types_of_pairs_reach_the_model(classifier, ragged):
    types = tf.ones_like(ragged)
    one, other = logits_of(classifier, ragged), logits_of(classifier, ragged, types)
    padded = {"input_ids": ragged.to_tensor(), "attention_mask": tf.ones_like(ragged).to_tensor()}
    expected = classifier.model(padded | {"token_type_ids": types.to_tensor()}, training=False)
    np.testing.assert_allclose(other, expected, atol=1e-5)
    assert not np.allclose(one, other, atol=1e-5)


def test_no_text(classifier, ragged):
    assert logits_of(classifier, ragged[:0]).shape == (0, 3)

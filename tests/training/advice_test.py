import math

import numpy as np
import pytest

from tf_finetune.training import advice


@pytest.mark.parametrize(
    ("learning_rate", "usual"), [(2e-5, True), (1e-6, True), (5e-4, True), (1e-3, False), (1e-8, False)]
)
def test_learning_rate(learning_rate, usual):
    said = advice.of_learning_rate(learning_rate)
    assert (said is None) == usual
    if said:
        assert said.startswith(f"optimizer.learning_rate={learning_rate:g} is outside of 1e-06 to 0.0005")


def test_lora_takes_more():
    assert advice.of_learning_rate(1e-3, lora=True) is None
    assert advice.of_learning_rate(1e-2, lora=True)


def test_chance_of_smoothed_labels_is_above_what_a_perfect_answer_pays():
    labels = np.array([0] * 95 + [1] * 5)
    chance = advice.chance_loss(labels, None, label_smoothing=0.1)
    perfect = -(0.95 * math.log(0.95) + 0.05 * math.log(0.05))  # each text answered with its smoothed label
    assert perfect < chance - 0.1
    shares = 0.905, 0.095
    assert chance == pytest.approx(-sum(share * math.log(share) for share in shares))
    several = np.array([[1.0, 0.0], [0.0, 0.0]])
    halves = advice.chance_loss(several, None, label_smoothing=0.2)
    assert halves == pytest.approx((math.log(2) - 0.1 * math.log(0.1) - 0.9 * math.log(0.9)) / 2)


def test_truncation():
    assert advice.of_truncation(np.array([128, 128, 7, 9]), 128) is None
    assert advice.of_truncation(np.array([128, 128, 128, 9]), 128) == (
        "75% of the training texts fill data.max_length=128: what is longer is cut"
    )


def test_constant_answers():
    names = ("neg", "pos")
    same, other = np.array([[0.1, 0.9], [0.4, 0.6]]), np.array([[0.1, 0.9], [0.6, 0.4]])
    assert advice.of_constant_answers(same, names, 2) == (
        "every validation text is answered 'pos': the model may not be learning"
    )
    assert advice.of_constant_answers(other, names, 2) is None
    assert advice.of_constant_answers(same, names, 1) is None


def test_loss():
    assert advice.of_loss(0.6, 0.69, 0) is None
    assert advice.of_loss(0.7, 0.69, 1) == (
        "the training loss of epoch 2, 0.7000, is not below chance, 0.6900: the model may not be learning"
    )


@pytest.mark.parametrize(
    ("labels", "weights", "expected"),
    [
        (np.array([0, 1, 0, 1]), None, math.log(2)),
        (np.array([0, 1, 2]), None, math.log(3)),
        (np.array([0, 0, 0, 1]), None, -0.75 * math.log(0.75) - 0.25 * math.log(0.25)),
        (np.array([0, 0, 0, 1]), np.array([1, 1, 1, 3]), math.log(2)),
        (np.array([1, 1]), None, 0.0),
        (np.array([1.0, 3.0, 5.0], np.float32), None, 8 / 3),
        (np.array([[1.0, 0.0], [0.0, 0.0]], np.float32), None, math.log(2) / 2),
    ],
)
def test_chance(labels, weights, expected):
    assert advice.chance_loss(labels, weights) == pytest.approx(expected)

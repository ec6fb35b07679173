import numpy as np
import pytest

from tf_finetune.config import ProblemType
from tf_finetune.evaluation.outcomes import examples_loss, is_right
from tf_finetune.evaluation.reliability import reliability

ONE, SEVERAL = ProblemType.SINGLE_LABEL_CLASSIFICATION, ProblemType.MULTI_LABEL_CLASSIFICATION


def logits_of(probabilities):
    return np.log(np.array(probabilities, np.float64))


class TestReliability:
    def test_by_hand(self):
        # Two bins: three answers of 0.9, of which two are right, and two of 0.6, of which one is.
        logits = logits_of([[0.1, 0.9], [0.1, 0.9], [0.9, 0.1], [0.4, 0.6], [0.6, 0.4]])
        found = reliability(logits, np.array([1, 0, 0, 1, 1]), ONE)
        assert found.answers == [2, 3]
        assert found.confidence == pytest.approx([0.6, 0.9])
        assert found.accuracy == pytest.approx([1 / 2, 2 / 3])
        assert found.expected_calibration_error == pytest.approx((2 * 0.1 + 3 * (0.9 - 2 / 3)) / 5)

    def test_honest_probabilities_have_a_small_error(self):
        random = np.random.default_rng(0)
        second = random.random(20_000)
        labels = (random.random(20_000) < second).astype(np.int64)
        found = reliability(logits_of(np.stack([1 - second, second], axis=1)), labels, ONE)
        assert found.expected_calibration_error < 0.02

    def test_too_sure_by_half(self):
        labels = np.arange(1000) % 2
        logits = np.tile([0.0, 100.0], (1000, 1))
        assert reliability(logits, labels, ONE).expected_calibration_error == pytest.approx(0.5)

    def test_several_labels_are_as_many_answers(self):
        logits = np.array([[20.0, -20.0], [20.0, 20.0]])
        found = reliability(logits, np.array([[1, 0], [0, 1]], np.float32), SEVERAL)
        assert sum(found.answers) == 4
        assert found.accuracy == [0.75]


class TestOutcomes:
    def test_right_of_several_is_all_right(self):
        logits = np.array([[1.0, -1.0], [1.0, 1.0]])
        assert is_right(logits, np.array([[1, 0], [0, 1]], np.float32), SEVERAL).tolist() == [True, False]

    def test_loss_by_hand(self):
        found = examples_loss(logits_of([[0.25, 0.75], [0.5, 0.5]]), np.array([1, 0]), ONE)
        np.testing.assert_allclose(found, -np.log([0.75, 0.5]))
        found = examples_loss(np.array([[0.0, 0.0]]), np.array([[1, 0]], np.float32), SEVERAL)
        np.testing.assert_allclose(found, [np.log(2)])
        found = examples_loss(np.array([[2.0]]), np.array([0.5], np.float32), ProblemType.REGRESSION)
        np.testing.assert_allclose(found, [2.25])

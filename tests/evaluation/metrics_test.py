import json
import math

import numpy as np
import pytest

from tf_finetune.config import ProblemType
from tf_finetune.evaluation.metrics import (
    classification_metrics,
    multi_label_metrics,
    regression_metrics,
    score,
    sigmoid,
    softmax,
)


def logits_of(probabilities):
    return np.log(np.array(probabilities, dtype=np.float64))


class TestSoftmax:
    def test_by_hand(self):
        np.testing.assert_allclose(softmax(np.array([[0.0, math.log(3.0)]])), [[0.25, 0.75]], rtol=1e-15)

    def test_float32_comes_out_as_float64(self):
        assert softmax(np.zeros((2, 3), np.float32)).dtype == np.float64

    @pytest.mark.parametrize("size", [1e4, 1e30, 3e38])
    def test_extreme_logits(self, size):
        logits = np.array([[size, -size], [-size, size], [size, size], [-size, -size]], np.float32)
        np.testing.assert_array_equal(softmax(logits), [[1, 0], [0, 1], [0.5, 0.5], [0.5, 0.5]])

    def test_shift_changes_nothing(self):
        logits = np.array([[1.0, 2.0, 4.0]])
        np.testing.assert_allclose(softmax(logits + 512), softmax(logits), rtol=1e-15)

    def test_no_rows(self):
        assert softmax(np.zeros((0, 2))[:0]).shape == (0, 2)


class TestBinary:
    """Five examples: a hit of class 0, two of class 1, one false positive, one false negative."""

    @pytest.fixture
    def metrics(self):
        logits = logits_of([[0.8, 0.2], [0.3, 0.7], [0.4, 0.6], [0.7, 0.3], [0.25, 0.75]])
        return classification_metrics(logits, np.array([0, 0, 1, 1, 1]))

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("examples", 5),
            ("accuracy", 3 / 5),
            ("precision", 2 / 3),
            ("recall", 2 / 3),
            ("f1", 2 / 3),
            # Of the six pairs of one example of each class, .6 and .3 stand wrongly below .7.
            ("roc_auc", 4 / 6),
            ("loss", -(math.log(0.8) + math.log(0.3) + math.log(0.6) + math.log(0.3) + math.log(0.75)) / 5),
        ],
    )
    def test_value(self, metrics, name, value):
        assert metrics[name] == pytest.approx(value, rel=1e-12)

    def test_confusion_matrix_rows_are_true_classes(self, metrics):
        assert metrics["confusion_matrix"] == [[1, 1], [1, 2]]

    def test_second_class_is_the_positive_one(self):
        metrics = classification_metrics(logits_of([[0.1, 0.9]] * 3), np.array([0, 0, 1]))
        assert metrics["precision"] == pytest.approx(1 / 3)
        assert metrics["recall"] == 1


class TestThreeClasses:
    @pytest.fixture
    def metrics(self):
        # Predicted 0, 0, 1, 2, 2, 1 of true 0, 1, 1, 2, 2, 2.
        probabilities = [
            [0.7, 0.2, 0.1], [0.5, 0.4, 0.1], [0.2, 0.6, 0.2], [0.1, 0.1, 0.8], [0.3, 0.1, 0.6], [0.1, 0.5, 0.4],
        ]  # fmt: skip
        return classification_metrics(logits_of(probabilities), np.array([0, 1, 1, 2, 2, 2]))

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("accuracy", 4 / 6),
            ("precision", (1 / 2 + 1 / 2 + 2 / 2) / 3),
            ("recall", (1 / 1 + 1 / 2 + 2 / 3) / 3),
            ("f1", (2 / 3 + 1 / 2 + 4 / 5) / 3),
            # Class 0: 5 of 5 pairs; class 1: 7 of 8 (.4 < .5); class 2: 9 of 9.
            ("roc_auc", (5 / 5 + 7 / 8 + 9 / 9) / 3),
            ("loss", -sum(map(math.log, (0.7, 0.4, 0.6, 0.8, 0.6, 0.4))) / 6),
        ],
    )
    def test_value(self, metrics, name, value):
        assert metrics[name] == pytest.approx(value, rel=1e-12)

    def test_confusion_matrix(self, metrics):
        assert metrics["confusion_matrix"] == [[1, 0, 0], [1, 1, 0], [0, 1, 2]]

    def test_class_that_nobody_predicts_counts_as_zero(self):
        metrics = classification_metrics(logits_of([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1]]), np.array([0, 1]))
        assert metrics["f1"] == pytest.approx(2 / 3)


class TestMissingClass:
    @pytest.mark.parametrize("labels", [[0, 0], [1, 1]])
    def test_binary_auc_is_none(self, labels):
        metrics = classification_metrics(logits_of([[0.8, 0.2], [0.3, 0.7]]), np.array(labels))
        assert metrics["roc_auc"] is None
        assert metrics["accuracy"] == 0.5

    def test_three_class_auc_is_none(self):
        metrics = classification_metrics(np.eye(3)[[0, 1]] * 4.0, np.array([0, 1]))
        assert metrics["roc_auc"] is None

    def test_confusion_matrix_has_every_class(self):
        metrics = classification_metrics(np.eye(3)[[0, 1]] * 4.0, np.array([0, 1]))
        assert metrics["confusion_matrix"] == [[1, 0, 0], [0, 1, 0], [0, 0, 0]]


@pytest.mark.parametrize("size", [5.0, 1e4])
def test_values_are_strict_json(size):
    metrics = classification_metrics(np.float32([[size, -size], [-size, size]]), np.array([1, 0], np.int32))
    assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics


def test_certain_and_wrong_has_a_large_finite_loss():
    metrics = classification_metrics(np.float32([[1e4, -1e4], [-1e4, 1e4]]), np.array([1, 0]))
    assert 30 < metrics["loss"] < 1000


@pytest.mark.parametrize("num_labels", [2, 3])
def test_float32_logits_of_a_model_pass_without_a_warning(num_labels):
    random = np.random.default_rng(0)
    logits = random.normal(size=(200, num_labels)).astype(np.float32)
    metrics = classification_metrics(logits, random.integers(0, num_labels, size=200).astype(np.int32))
    assert metrics["examples"] == 200


class TestMultiLabel:
    """Four examples of two classes: two wholly right, one with a class missed, one with a class too many."""

    @pytest.fixture
    def metrics(self):
        logits = np.array([[2.0, -2.0], [-1.0, 3.0], [0.5, 0.5], [-4.0, -4.0]], np.float32)
        return multi_label_metrics(logits, np.array([[1, 0], [1, 1], [1, 0], [0, 0]], np.float32))

    def test_by_hand(self, metrics):
        assert metrics["examples"] == 4
        assert metrics["accuracy"] == 0.5
        assert metrics["precision"] == pytest.approx(3 / 4)
        assert metrics["recall"] == pytest.approx(3 / 4)
        assert metrics["f1"] == pytest.approx(3 / 4)
        assert metrics["f1_macro"] == pytest.approx((4 / 5 + 2 / 3) / 2)
        assert metrics["confusion_matrix"] == [[[1, 0], [1, 2]], [[2, 1], [0, 1]]]

    def test_loss_is_the_mean_over_examples_and_classes(self, metrics):
        probabilities = 1 / (1 + np.exp(-np.array([2.0, 2.0, -1.0, 3.0, 0.5, -0.5, 4.0, 4.0])))
        assert metrics["loss"] == pytest.approx(-np.log(probabilities).mean())

    def test_auc_of_classes_that_have_one(self, metrics):
        assert metrics["roc_auc"] == pytest.approx((1.0 + 1.0) / 2)
        lone = multi_label_metrics(np.zeros((2, 1), np.float32), np.ones((2, 1)))
        assert lone["roc_auc"] is None

    def test_json_ready(self, metrics):
        json.dumps(metrics, allow_nan=False)

    def test_a_single_class(self):
        """Which sklearn takes for two."""
        logits = np.array([[1.0], [-1.0], [-1.0], [-1.0]], np.float32)
        metrics = multi_label_metrics(logits, np.array([[1], [1], [0], [0]]))
        assert metrics["confusion_matrix"] == [[[2, 0], [1, 1]]]
        assert (metrics["precision"], metrics["recall"]) == (1.0, 0.5)
        assert metrics["f1"] == metrics["f1_macro"] == pytest.approx(2 / 3)

    def test_equals_sklearn(self):
        from sklearn import metrics as reference

        random = np.random.default_rng(0)
        logits, labels = random.normal(size=(50, 4)).astype(np.float32), random.integers(0, 2, (50, 4))
        found, predicted = multi_label_metrics(logits, labels), (logits >= 0).astype(int)
        for average, name in (("micro", "f1"), ("macro", "f1_macro")):
            assert found[name] == pytest.approx(reference.f1_score(labels, predicted, average=average))
        assert found["confusion_matrix"] == reference.multilabel_confusion_matrix(labels, predicted).tolist()


class TestRegression:
    def test_by_hand(self):
        metrics = regression_metrics(np.array([[1.0], [2.0], [4.0]], np.float32), np.array([1.0, 3.0, 4.0]))
        assert metrics["loss"] == pytest.approx(1 / 3)
        assert metrics["mean_absolute_error"] == pytest.approx(1 / 3)
        assert metrics["spearman"] == pytest.approx(1)
        assert metrics["pearson"] == pytest.approx(np.corrcoef([1, 2, 4], [1, 3, 4])[0, 1])

    @pytest.mark.parametrize(("predicted", "labels"), [([2, 2], [1, 3]), ([1, 3], [2, 2])])
    def test_no_correlation_with_what_is_constant(self, predicted, labels):
        metrics = regression_metrics(np.array(predicted, np.float32)[:, None], np.array(labels))
        assert (metrics["pearson"], metrics["spearman"]) == (None, None)


class TestScore:
    def test_regression_goes_by_the_error(self):
        assert score({"loss": 0.1}, ProblemType.REGRESSION) > score({"loss": 0.2}, ProblemType.REGRESSION)

    def test_several_labels_go_by_f1(self):
        better, worse = {"f1": 0.7, "accuracy": 0.1, "loss": 1.0}, {"f1": 0.6, "accuracy": 0.9, "loss": 0.1}
        assert score(better, ProblemType.MULTI_LABEL_CLASSIFICATION) > score(
            worse, ProblemType.MULTI_LABEL_CLASSIFICATION
        )

    def test_among_equals_the_lower_loss(self):
        better, worse = {"accuracy": 0.7, "loss": 0.5}, {"accuracy": 0.7, "loss": 0.6}
        assert score(better, ProblemType.SINGLE_LABEL_CLASSIFICATION) > score(
            worse, ProblemType.SINGLE_LABEL_CLASSIFICATION
        )


@pytest.mark.parametrize("size", [1e4, 3e38])
def test_sigmoid_of_extreme_logits(size):
    np.testing.assert_array_equal(sigmoid(np.array([size, -size, 0], np.float32)), [1, 0, 0.5])

import numpy as np
import pytest

from tf_finetune.config import ProblemType
from tf_finetune.serving.comparison import compare, table

SIZES = {"size": 25_000_000, "float32_size": 100_000_000}


def logits_of(*probabilities):
    """Of two classes, the second with these probabilities."""
    second = np.array(probabilities)
    return np.log(np.stack([1 - second, second], axis=1)).astype(np.float32)


def test_classes():
    expected, got = logits_of(0.9, 0.2, 0.6, 0.1), logits_of(0.8, 0.2, 0.4, 0.1)
    one = compare("int8", got, expected, np.array([1, 0, 1, 0]), ProblemType.SINGLE_LABEL_CLASSIFICATION, **SIZES)
    assert one.difference == pytest.approx(0.2)
    assert (one.lost, one.same_labels) == (25, 0.75)
    assert (one.megabytes, one.share) == (25, 0.25)
    assert one.quality == "accuracy 0.7500"


def test_several_labels():
    expected, got = np.array([[1.0, -1.0], [2.0, 0.1]]), np.array([[1.0, -1.0], [2.0, -0.1]])
    one = compare("int8", got, expected, np.array([[1, 0], [1, 1]]), ProblemType.MULTI_LABEL_CLASSIFICATION, **SIZES)
    assert (one.same_labels, one.quality) == (0.5, "f1 0.8000")
    assert one.lost == pytest.approx(20)


def test_numbers_count_relative_above_one():
    expected, got = np.array([[100.0], [0.5], [1.0]]), np.array([[101.0], [0.505], [1.0]])
    one = compare("int8", got, expected, np.array([99.0, 0.5, 1.0]), ProblemType.REGRESSION, **SIZES)
    assert one.difference == pytest.approx(0.01)
    assert one.same_labels is None
    assert one.lost == pytest.approx(100 * 3, rel=1e-3)  # the squared error is four times what it was


def test_a_form_that_answers_nan_is_infinitely_far():
    expected, got = logits_of(0.9, 0.2), np.array([[0.1, 0.3], [np.inf, 0.0]], np.float32)
    with np.errstate(invalid="ignore"):
        one = compare("int8", got, expected, np.array([1, 0]), ProblemType.REGRESSION, **SIZES)
    assert one.difference == np.inf


def test_table():
    logits = logits_of(0.9, 0.2)
    one = compare("model.tflite", logits, logits, np.array([1, 0]), ProblemType.SINGLE_LABEL_CLASSIFICATION, **SIZES)
    assert table([one], "accuracy 0.8603") == [
        "  form              largest difference  same labels      MB   size  quality",
        "  checkpoint                         -            -       -   1.00  accuracy 0.8603",
        "  model.tflite                 0.0e+00       1.0000    25.0   0.25  accuracy 1.0000",
    ]

import numpy as np
import pytest

from tf_finetune.config import ProblemType
from tf_finetune.evaluation.calibration import HIGHEST, LOWEST, fit_temperature
from tf_finetune.evaluation.metrics import probabilities_of

ONE, SEVERAL = ProblemType.SINGLE_LABEL_CLASSIFICATION, ProblemType.MULTI_LABEL_CLASSIFICATION


def drawn(kind, *, temperature, examples=20_000, classes=3):
    """Logits, and labels that come as often as the logits divided by the temperature say."""
    random = np.random.default_rng(0)
    logits = random.normal(scale=3.0, size=(examples, classes)).astype(np.float32)
    probabilities = probabilities_of(logits / temperature, kind)
    if kind is SEVERAL:
        return logits, (random.random(probabilities.shape) < probabilities).astype(np.float32)
    return logits, (random.random((examples, 1)) > probabilities.cumsum(axis=-1)).sum(axis=-1)


@pytest.mark.parametrize("kind", [ONE, SEVERAL])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_temperature_that_labels_were_drawn_with_is_found(kind, temperature):
    assert fit_temperature(*drawn(kind, temperature=temperature), kind) == pytest.approx(temperature, rel=0.03)


@pytest.mark.parametrize("kind", [ONE, SEVERAL])
def test_it_has_less_loss_than_its_neighbours(kind):
    logits, labels = drawn(kind, temperature=1.7, examples=500)
    hits = labels if kind is SEVERAL else np.eye(3)[labels]

    def loss(temperature):
        p = probabilities_of(logits / temperature, kind)
        return -np.mean(hits * np.log(p) + ((1 - hits) * np.log1p(-p) if kind is SEVERAL else 0))

    found = fit_temperature(logits, labels, kind)
    assert loss(found) < min(loss(0.9 * found), loss(1.1 * found))


def test_a_few_examples_all_right_do_not_make_it_sure():
    logits, labels = np.array([[0.0, 2.0], [2.0, 0.0]] * 4, np.float32), np.array([1, 0] * 4)
    temperature = fit_temperature(logits, labels, ONE)
    # All of 8, and half of one more.
    assert probabilities_of(logits / temperature, ONE).max() == pytest.approx(8.5 / 9, abs=1e-3)


def test_many_classes_and_few_examples_may_be_sure():
    labels = np.arange(77)
    logits = 12.0 * np.eye(77) + np.random.default_rng(0).normal(size=(77, 77))
    probabilities = probabilities_of(logits / fit_temperature(logits, labels, ONE), ONE)
    assert probabilities.max(axis=-1).mean() > 0.95


@pytest.mark.parametrize(("sign", "end"), [(-1, HIGHEST), (1e-3, LOWEST)])
def test_it_stays_between_its_ends(sign, end):
    logits, labels = drawn(ONE, temperature=1.0, examples=1000)
    assert fit_temperature(sign * logits, labels, ONE) == pytest.approx(end, rel=1e-3)

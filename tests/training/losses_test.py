import keras
import numpy as np
import pytest

from tf_finetune.training.losses import SmoothedCrossentropy

LOGITS = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
LABELS = np.array([0, 2, 1, 1, 0, 2, 2], np.int32)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_equals_pytorch(smoothing):
    torch = pytest.importorskip("torch", reason="the comparison with PyTorch needs the `parity` extra")
    reference = torch.nn.CrossEntropyLoss(label_smoothing=smoothing)(
        torch.tensor(LOGITS), torch.tensor(LABELS, dtype=torch.long)
    )
    assert float(SmoothedCrossentropy(smoothing)(LABELS, LOGITS)) == pytest.approx(float(reference), abs=1e-6)


def test_equals_keras_of_one_hot_labels():
    expected = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.2)(np.eye(3)[LABELS], LOGITS)
    assert float(SmoothedCrossentropy(0.2)(LABELS, LOGITS)) == pytest.approx(float(expected), abs=1e-6)


def test_takes_labels_as_a_column_and_weights():
    loss = SmoothedCrossentropy(0.2)
    one = float(loss(LABELS[:1], LOGITS[:1]))
    assert float(loss(LABELS[:2, None], LOGITS[:2], sample_weight=[2.0, 0.0])) == pytest.approx(one, abs=1e-6)


def test_serialization():
    loss = keras.losses.deserialize(keras.losses.serialize(SmoothedCrossentropy(0.2)))
    assert type(loss) is SmoothedCrossentropy
    assert loss.label_smoothing == 0.2

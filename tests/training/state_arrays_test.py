import keras
import numpy as np
import pytest

from tf_finetune.bert.architecture import BertArchitecture
from tf_finetune.bert.model import TFBertForSequenceClassification
from tf_finetune.errors import InputError
from tf_finetune.training import state_arrays
from tf_finetune.training.optimizer import create_optimizer

SIZES = {"vocab_size": 10, "hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 16}
INPUTS = {"input_ids": np.arange(24).reshape(8, 3) % 10}
LABELS = np.arange(8) % 2


def trained(*, layers=1, steps=2):
    architecture = BertArchitecture(num_hidden_layers=layers, max_position_embeddings=8, **SIZES)
    model = TFBertForSequenceClassification(architecture)
    model.build()
    optimizer, _ = create_optimizer(1e-2, 10, 2, skip_nonfinite_steps=True)
    metrics = [keras.metrics.SparseCategoricalAccuracy("accuracy")]
    model.compile(optimizer, model.default_loss(), weighted_metrics=metrics, jit_compile=False)
    model.fit(INPUTS, LABELS, batch_size=4, epochs=steps // 2, shuffle=False, verbose=0)
    return model


def test_a_model_made_later_goes_on_to_the_same_bits():
    """Keras numbers what has no name as it is made; the second model's numbers are others."""
    keras.utils.set_random_seed(1)
    first = trained()
    arrays, metrics = state_arrays.arrays_of(first), state_arrays.metrics_of(first)
    keras.utils.set_random_seed(2)
    second = trained()
    second.set_weights(first.get_weights())
    state_arrays.restore(second, arrays)
    state_arrays.restore_metrics(second, metrics)
    for name, array in (state_arrays.arrays_of(second) | state_arrays.metrics_of(second)).items():
        np.testing.assert_array_equal(array, (arrays | metrics)[name], err_msg=name)
    for model in (first, second):
        model.fit(INPUTS, LABELS, batch_size=4, shuffle=False, verbose=0)
    for mine, theirs in zip(first.weights, second.weights, strict=True):
        np.testing.assert_array_equal(mine.numpy(), theirs.numpy(), err_msg=mine.path)


def test_names_carry_no_number_of_the_process():
    models = [trained() for _ in range(2)]
    names = [set(state_arrays.arrays_of(model)) | set(state_arrays.metrics_of(model)) for model in models]
    assert names[0] == names[1]
    assert {"optimizer/adamw/iteration", "seeds/0", "metrics/0"} <= names[0]


def test_metrics_and_the_rest_are_told_apart():
    model = trained()
    others, metrics = state_arrays.split(state_arrays.arrays_of(model) | state_arrays.metrics_of(model))
    assert (set(others), set(metrics)) == (set(state_arrays.arrays_of(model)), set(state_arrays.metrics_of(model)))
    assert metrics


@pytest.mark.parametrize(("theirs", "mine"), [(2, 1), (1, 2)])
def test_the_state_of_another_model_is_refused(theirs, mine):
    arrays, model = state_arrays.arrays_of(trained(layers=theirs)), trained(layers=mine)
    before = state_arrays.arrays_of(model)
    sides = ("none", "one of shape") if theirs > mine else ("one of shape", "none")
    with pytest.raises(InputError, match="not of this model, in optimizer/.*, expected {}.*, got {}".format(*sides)):
        state_arrays.restore(model, arrays)
    for name, array in state_arrays.arrays_of(model).items():
        np.testing.assert_array_equal(array, before[name])


@pytest.mark.parametrize("missing", ["optimizer/adamw/iteration", "seeds/0"])
def test_a_state_that_lacks_something_is_refused(missing):
    model = trained()
    arrays = state_arrays.arrays_of(model)
    arrays.pop(missing)
    with pytest.raises(InputError, match=f"not of this model, in {missing}, expected one of shape .*, got none"):
        state_arrays.restore(model, arrays)


def test_a_state_of_another_shape_is_refused():
    model = trained()
    arrays = state_arrays.arrays_of(model) | {"seeds/0": np.zeros(3, np.uint32)}
    with pytest.raises(InputError, match=r"in seeds/0, expected one of shape \(2,\), got one of shape \(3,\)"):
        state_arrays.restore(model, arrays)

import numpy as np
import pytest

from tf_finetune import TFBertForSequenceClassification, create_optimizer
from tf_finetune.bert.architecture import BertArchitecture

SIZES = {"vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def batch(examples, seed=0):
    """Inputs with padding, labels and weights."""
    random = np.random.default_rng(seed)
    lengths = random.integers(3, 17, examples)
    mask = (np.arange(16) < lengths[:, None]).astype("int32")
    inputs = {"input_ids": random.integers(5, 60, (examples, 16)).astype("int32") * mask, "attention_mask": mask}
    return inputs, random.integers(0, 3, examples).astype("int32"), random.uniform(0.1, 2, examples).astype("float32")


def trained(steps, data, *, rate=1e-2, checkpointing=False, **changes):
    """The weights after three steps, and the metrics of the last."""
    architecture = BertArchitecture(**SIZES | NO_DROPOUT | changes, id2label=("a", "b", "c"))
    model = TFBertForSequenceClassification(architecture)
    model.build()
    random = np.random.default_rng(1)
    for variable in model.trainable_variables:
        variable.assign(random.normal(scale=0.2, size=variable.shape))
    if checkpointing:
        model.gradient_checkpointing_enable()
    model.gradient_accumulation_enable(steps)
    optimizer, _ = create_optimizer(rate, 10, 0, weight_decay_rate=0.01, adam_global_clipnorm=1.0, schedule="constant",
                                    skip_nonfinite_steps=True)  # fmt: skip
    model.compile(optimizer, model.default_loss(), weighted_metrics=["accuracy"], jit_compile=False)
    for _ in range(3):
        metrics = model.train_on_batch(*data, return_dict=True)
    return model, {name: float(value) for name, value in metrics.items()}


@pytest.mark.parametrize(
    ("steps", "examples", "checkpointing"),
    [(4, 32, False), (3, 7, False), (4, 2, False), (2, 1, False), (3, 7, True)]
    + [pytest.param(*sizes, True, marks=pytest.mark.slow) for sizes in ((4, 32), (4, 2), (2, 1))],
)
def test_the_pieces_equal_the_whole(steps, examples, checkpointing):
    data = batch(examples)
    (whole, expected), (pieces, found) = (trained(n, data, checkpointing=checkpointing) for n in (1, steps))
    assert found == pytest.approx(expected, rel=1e-5)
    for one, other in zip(whole.trainable_variables, pieces.trainable_variables, strict=True):
        # Adam divides a gradient by its own size: where it is nearly nothing, its rounding shows.
        np.testing.assert_allclose(one.numpy(), other.numpy(), rtol=0, atol=3e-4, err_msg=one.path)
    slots = [(one, other) for one, other in zip(whole.optimizer.variables, pieces.optimizer.variables, strict=True)]
    for one, other in slots:
        np.testing.assert_allclose(one.numpy(), other.numpy(), rtol=1e-4, atol=1e-6, err_msg=one.path)


def test_weights_count_across_pieces():
    inputs, labels, weights = batch(8)
    weights[:4] = 0  # the whole first piece
    (whole, _), (pieces, _) = (trained(n, (inputs, labels, weights)) for n in (1, 2))
    for one, other in zip(whole.optimizer.variables, pieces.optimizer.variables, strict=True):
        np.testing.assert_allclose(one.numpy(), other.numpy(), rtol=1e-4, atol=1e-6, err_msg=one.path)


def test_dropout_differs_from_piece_to_piece():
    inputs, labels, _ = batch(1)
    twice = {name: np.repeat(values, 2, axis=0) for name, values in inputs.items()}, np.repeat(labels, 2)
    model, _ = trained(2, twice, hidden_dropout_prob=0.5, rate=1e-12)
    seeds = [variable.numpy() for variable in model.variables if variable.path.endswith("seed_generator_state")]
    assert max(seed[1] for seed in seeds) == 6  # three steps of two pieces


def test_a_step_that_is_not_finite_is_skipped():
    inputs, labels, weights = batch(8)
    weights[7] = np.inf
    model, _ = trained(4, (inputs, labels, weights))
    assert int(model.optimizer.skipped_steps) == 3
    assert all(np.isfinite(variable.numpy()).all() for variable in model.trainable_variables)


@pytest.mark.parametrize("steps", [0, -1, 2.0, True])
def test_steps_that_cannot_be(steps):
    model = TFBertForSequenceClassification(BertArchitecture(**SIZES))
    with pytest.raises(ValueError, match="`steps` must be a whole number above 0"):
        model.gradient_accumulation_enable(steps)


def test_xla_is_refused():
    model = TFBertForSequenceClassification(BertArchitecture(**SIZES))
    model.gradient_accumulation_enable(2)
    with pytest.raises(ValueError, match="accumulation goes without XLA"):
        model.compile("sgd", model.default_loss(), jit_compile=True)


def test_keras_choice_of_xla_is_none_then():
    model = TFBertForSequenceClassification(BertArchitecture(**SIZES))
    model.gradient_accumulation_enable(2)
    model.compile("sgd", model.default_loss())
    assert model.jit_compile is False

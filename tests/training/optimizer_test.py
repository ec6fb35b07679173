import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from tf_finetune.bert.architecture import BertArchitecture
from tf_finetune.bert.model import TFBertForSequenceClassification
from tf_finetune.training.optimizer import (
    AdamWeightDecay,
    WarmupConstant,
    WarmupCosineDecay,
    WarmupLinearDecay,
    create_optimizer,
    layer_decay_factors,
)

SHAPES = {"table": (6, 3), "kernel": (3, 4), "bias": (4,)}


def linear_schedule_with_warmup(step, warmup, total):
    """transformers.get_linear_schedule_with_warmup, word for word."""
    if step < warmup:
        return float(step) / float(max(1, warmup))
    return max(0.0, float(total - step) / float(max(1, total - warmup)))


def cosine_schedule_with_warmup(step, warmup, total):
    """What transformers.get_cosine_schedule_with_warmup gives, with its half a cycle."""
    if step < warmup:
        return step / max(1, warmup)
    return max(0.0, 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup))))


def constant_schedule_with_warmup(step, warmup, total):
    return min(1.0, step / max(1, warmup)) if step < warmup else 1.0


def new_variables(seed=0):
    random = np.random.default_rng(seed)
    return [keras.Variable(random.normal(size=shape).astype("float32"), name=name) for name, shape in SHAPES.items()]


def new_gradients(steps, seed=1):
    """Gradients of SHAPES for each step; the table's is sparse, with a row that comes twice."""
    random = np.random.default_rng(seed)
    for _ in range(steps):
        rows = tf.constant(random.normal(size=(4, 3)), tf.float32)
        table = tf.IndexedSlices(rows, tf.constant([1, 4, 1, 0]), tf.constant([6, 3]))
        yield [table, *(tf.constant(random.normal(size=shape), tf.float32) for shape in list(SHAPES.values())[1:])]


def dense(gradients):
    return [tf.convert_to_tensor(gradient) for gradient in gradients]


class TestSchedule:
    @pytest.mark.parametrize(("warmup", "total"), [(0, 10), (1, 10), (3, 10), (10, 10), (0, 1), (1, 1), (79, 792)])
    def test_equals_transformers_at_every_step(self, warmup, total):
        schedule = WarmupLinearDecay(2e-5, total, warmup)
        expected = [2e-5 * linear_schedule_with_warmup(step, warmup, total) for step in range(total + 3)]
        np.testing.assert_allclose(
            [float(schedule(step)) for step in range(total + 3)], expected, rtol=1e-5, atol=1e-12
        )

    @pytest.mark.parametrize(("warmup", "total"), [(0, 10), (1, 10), (3, 10), (10, 10), (0, 1), (79, 792)])
    def test_cosine_and_constant_equal_transformers_at_every_step(self, warmup, total):
        for schedule, formula in (
            (WarmupCosineDecay, cosine_schedule_with_warmup),
            (WarmupConstant, constant_schedule_with_warmup),
        ):
            found = [float(schedule(2e-5, total, warmup)(step)) for step in range(total + 1)]
            expected = [2e-5 * formula(step, warmup, total) for step in range(total + 1)]
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-11)

    def test_peak_is_reached_at_the_end_of_the_warmup(self):
        assert float(WarmupLinearDecay(0.5, 10, 4)(4)) == 0.5

    def test_takes_a_step_variable(self):
        schedule = WarmupLinearDecay(1.0, 10, 0)
        assert float(schedule(keras.Variable(5, dtype="int32"))) == 0.5

    def test_a_warmup_below_zero_is_refused(self):
        with pytest.raises(ValueError, match="`num_warmup_steps` must be 0 or more. Received: num_warmup_steps=-1"):
            WarmupLinearDecay(1e-4, 10, -1)

    def test_a_warmup_longer_than_the_training_only_rises(self):
        schedule = WarmupLinearDecay(5e-5, 300, 500)
        np.testing.assert_allclose([float(schedule(step)) for step in (0, 100, 299)], [0, 1e-5, 2.99e-5], rtol=1e-6)

    @pytest.mark.parametrize("kind", [WarmupLinearDecay, WarmupCosineDecay, WarmupConstant])
    def test_serialization(self, kind):
        schedule = kind(1e-4, 10, 3)
        saved = keras.optimizers.schedules.serialize(schedule)
        loaded = keras.optimizers.schedules.deserialize(saved)
        assert type(loaded) is kind
        assert loaded.get_config() == schedule.get_config()


class TestFusedKernel:
    @pytest.mark.parametrize("clipnorm", [None, 1.0], ids=["unclipped", "clipped"])
    @pytest.mark.parametrize("weight_decay", [0.0, 0.1], ids=["no_decay", "decay"])
    @pytest.mark.parametrize("traced", [False, True], ids=["eager", "traced"])
    def test_equals_keras(self, clipnorm, weight_decay, traced):
        """The twin gets dense gradients: of sparse ones Keras 3.15 squares the rows, not their sums."""
        options = {"learning_rate": 0.01, "weight_decay": weight_decay, "global_clipnorm": clipnorm, "epsilon": 1e-8}
        ours, twin = new_variables(), new_variables()
        optimizer = AdamWeightDecay(exclude_from_weight_decay=["bias$"], **options)
        reference = keras.optimizers.AdamW(**options)
        reference.exclude_from_weight_decay(var_list=[twin[2]])
        optimizer.build(ours)
        reference.build(twin)

        def step(gradients):
            optimizer.apply(gradients, ours)

        step = tf.function(step) if traced else step
        for gradients in new_gradients(5):
            step(gradients)
            reference.apply(dense(gradients), twin)
        for mine, theirs in zip(ours, twin, strict=True):
            np.testing.assert_allclose(mine.numpy(), theirs.numpy(), rtol=0, atol=1e-6)

    @pytest.mark.parametrize("state", ["_momentums", "_velocities"])
    def test_states_equal_keras(self, state):
        ours, twin = new_variables(), new_variables()
        optimizer, reference = AdamWeightDecay(learning_rate=0.01), keras.optimizers.AdamW(learning_rate=0.01)
        for gradients in new_gradients(5):
            optimizer.apply(gradients, ours)
            reference.apply(dense(gradients), twin)
        for mine, theirs in zip(getattr(optimizer, state), getattr(reference, state), strict=True):
            np.testing.assert_allclose(mine.numpy(), theirs.numpy(), rtol=1e-5, atol=1e-7)

    def test_counts_steps(self):
        optimizer, variables = AdamWeightDecay(learning_rate=0.01), new_variables()
        for gradients in new_gradients(3):
            optimizer.apply(gradients, variables)
        assert int(optimizer.iterations) == 3

    def test_amsgrad_takes_the_keras_update(self):
        ours, twin = new_variables(), new_variables()
        optimizer = AdamWeightDecay(learning_rate=0.01, amsgrad=True, exclude_from_weight_decay=())
        reference = keras.optimizers.AdamW(learning_rate=0.01, amsgrad=True)
        for gradients in new_gradients(3):
            optimizer.apply(dense(gradients), ours)
            reference.apply(dense(gradients), twin)
        for mine, theirs in zip(ours, twin, strict=True):
            np.testing.assert_allclose(mine.numpy(), theirs.numpy(), rtol=1e-6)


class TestLayerDecay:
    def test_the_factors_of_three_blocks(self):
        assert layer_decay_factors(1.0, 3) == []
        factors = dict(layer_decay_factors(0.5, 3))
        assert factors == {"/layer_0/": 0.25, "/layer_1/": 0.5, "/layer_2/": 1.0, "/embeddings/": 0.125}

    def test_a_block_that_is_not_another_ones_beginning(self):
        model = TFBertForSequenceClassification(
            BertArchitecture(
                vocab_size=9, hidden_size=4, num_hidden_layers=11, num_attention_heads=1, intermediate_size=4
            )
        )
        model.build()
        optimizer = AdamWeightDecay(0.1, learning_rate_factors=layer_decay_factors(0.5, 11))
        optimizer.build(model.trainable_variables)
        factors = {
            variable.path.split("/", 1)[1]: optimizer._factor(variable) for variable in model.trainable_variables
        }
        assert factors["bert/layer_1/attention/qkv/kernel"] == 0.5**9
        assert factors["bert/layer_10/attention/qkv/kernel"] == 1
        assert factors["bert/embeddings/word_embeddings/embeddings"] == 0.5**11
        assert factors["bert/pooler/kernel"] == factors["classifier/kernel"] == 1

    @pytest.mark.parametrize("weight_decay", [0.0, 0.1])
    def test_equals_an_optimizer_of_another_learning_rate(self, weight_decay):
        options = {"weight_decay": weight_decay, "exclude_from_weight_decay": ["bias$"]}
        ours, whole, tenth = new_variables(), new_variables(), new_variables()
        optimizer = AdamWeightDecay(0.01, learning_rate_factors=[("kernel", 0.1)], **options)
        others = {0.01: whole, 0.001: tenth}
        twins = {rate: AdamWeightDecay(rate, **options) for rate in others}
        for gradients in new_gradients(5):
            optimizer.apply(gradients, ours)
            for rate, variables in others.items():
                twins[rate].apply(gradients, variables)
        for mine, expected in zip(ours, (whole[0], tenth[1], whole[2]), strict=True):
            np.testing.assert_allclose(mine.numpy(), expected.numpy(), rtol=0, atol=1e-7)

    def test_serialization(self):
        optimizer = AdamWeightDecay(0.01, learning_rate_factors=[("kernel", 0.1)])
        loaded = AdamWeightDecay.from_config(optimizer.get_config())
        assert loaded.learning_rate_factors == (("kernel", 0.1),)


class TestAgainstTorch:
    @pytest.mark.parametrize("max_norm", [None, 1.0], ids=["unclipped", "clipped"])
    def test_steps(self, max_norm):
        """Epsilon differs by definition (PyTorch adds it after the bias correction), so it is negligible here."""
        variables, options = new_variables(), {"weight_decay": 0.1, "epsilon": 1e-12}
        optimizer = AdamWeightDecay(
            learning_rate=0.01, global_clipnorm=max_norm, exclude_from_weight_decay=["bias$"], **options
        )
        torch = pytest.importorskip("torch", reason="the comparison with PyTorch needs the `parity` extra")
        weights = [torch.nn.Parameter(torch.tensor(variable.numpy())) for variable in variables]
        groups = [{"params": weights[:2], "weight_decay": 0.1}, {"params": weights[2:], "weight_decay": 0.0}]
        reference = torch.optim.AdamW(groups, lr=0.01, eps=1e-12)
        for gradients in new_gradients(8):
            optimizer.apply(gradients, variables)
            for weight, gradient in zip(weights, dense(gradients), strict=True):
                weight.grad = torch.tensor(gradient.numpy())
            if max_norm:
                torch.nn.utils.clip_grad_norm_(weights, max_norm)
            reference.step()
        for variable, weight in zip(variables, weights, strict=True):
            np.testing.assert_allclose(variable.numpy(), weight.detach().numpy(), rtol=0, atol=1e-5)


def test_clipping_sums_the_rows_of_a_sparse_gradient_first():
    """A token that comes twice has one gradient, the sum: its norm here is 3 + 4, not sqrt(3**2 + 4**2)."""
    table = keras.Variable(np.zeros((5, 2), np.float32))
    gradient = tf.IndexedSlices(tf.constant([[3.0, 0.0], [4.0, 0.0]]), tf.constant([1, 1]), tf.constant([5, 2]))
    optimizer = AdamWeightDecay(learning_rate=0.01, beta_1=0.0, global_clipnorm=1.0)
    optimizer.apply([gradient], [table])
    np.testing.assert_allclose(optimizer._momentums[0].numpy()[1], [1.0, 0.0], rtol=1e-6)


class TestSkipping:
    """Steps whose loss or gradient is not finite."""

    @pytest.fixture(params=[False, True], ids=["eager", "traced"])
    def step(self, request):
        """Applies gradients to the variables; returns the optimizer with all its options in use."""
        optimizer = AdamWeightDecay(
            learning_rate=0.01, weight_decay=0.1, global_clipnorm=1.0, skip_nonfinite_steps=True
        )
        variables = new_variables()
        optimizer.build(variables)

        def apply(gradients):
            optimizer.apply(gradients, variables)

        return optimizer, variables, tf.function(apply) if request.param else apply

    @pytest.mark.parametrize(("option", "value"), [("gradient_accumulation_steps", 2), ("loss_scale_factor", 1024.0)])
    def test_what_it_does_not_go_with_is_refused(self, option, value):
        expected = f"`skip_nonfinite_steps` goes with whole steps and unscaled losses. Received: {option}={value}"
        with pytest.raises(ValueError, match=expected):
            AdamWeightDecay(skip_nonfinite_steps=True, **{option: value})

    @pytest.mark.parametrize("option", ["gradient_accumulation_steps", "ema_overwrite_frequency"])
    def test_what_does_not_go_with_a_strategy_is_refused(self, option):
        with (
            tf.distribute.MirroredStrategy(["CPU:0"]).scope(),
            pytest.raises(ValueError, match=f"`{option}` goes with one device. Received: a tf.distribute strategy"),
        ):
            AdamWeightDecay(use_ema=True, **{option: 2}).build([keras.Variable(1.0)])

    @pytest.mark.parametrize("where", range(3))
    @pytest.mark.parametrize("value", [np.inf, np.nan])
    def test_nothing_changes_but_the_count(self, step, where, value):
        optimizer, variables, apply = step
        first, second, third = new_gradients(3)
        apply(first)
        kept = [variable.numpy() for variable in (*variables, *optimizer._momentums, *optimizer._velocities)]
        bad = list(second)
        bad[where] = (
            tf.IndexedSlices(bad[0].values * value, bad[0].indices, bad[0].dense_shape)
            if where == 0
            else bad[where] * value
        )
        apply(bad)
        assert (int(optimizer.skipped_steps), int(optimizer.skipped_in_a_row), int(optimizer.iterations)) == (1, 1, 2)
        now = [variable.numpy() for variable in (*variables, *optimizer._momentums, *optimizer._velocities)]
        for before, after in zip(kept, now, strict=True):
            np.testing.assert_array_equal(before, after)
        apply(third)
        assert (int(optimizer.skipped_steps), int(optimizer.skipped_in_a_row), int(optimizer.iterations)) == (1, 0, 3)
        assert all(np.isfinite(variable).all() for variable in variables)

    def test_finite_steps_are_the_same_bits(self, step):
        optimizer, variables, apply = step
        others = new_variables()
        plain = AdamWeightDecay(learning_rate=0.01, weight_decay=0.1, global_clipnorm=1.0)
        plain.build(others)
        once = tf.function(lambda gradients: plain.apply(gradients, others))
        for gradients in new_gradients(4):
            apply(gradients)
            once(gradients)
        if not isinstance(apply, type(once)):
            return  # eager operations are fused otherwise
        for mine, theirs in zip(variables, others, strict=True):
            np.testing.assert_array_equal(mine.numpy(), theirs.numpy())

    @pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
    def test_a_loss_that_is_not_finite_has_no_finite_gradient(self, value):
        optimizer, weight = AdamWeightDecay(skip_nonfinite_steps=True), tf.Variable(2.0)
        with tf.GradientTape() as tape:
            loss = optimizer.scale_loss(weight * 3 + value)
        assert not np.isfinite(tape.gradient(loss, weight))

    def test_a_finite_loss_stays(self):
        assert float(AdamWeightDecay(skip_nonfinite_steps=True).scale_loss(tf.constant(2.5))) == 2.5

    def test_it_comes_back_from_a_config(self):
        made = AdamWeightDecay.from_config(AdamWeightDecay(skip_nonfinite_steps=True).get_config())
        assert made.skip_nonfinite_steps
        assert not AdamWeightDecay.from_config(AdamWeightDecay().get_config()).skip_nonfinite_steps


class TestAverages:
    def optimizer_of(self, variables, **options):
        optimizer = AdamWeightDecay(0.1, use_ema=True, ema_momentum=0.5, **options)
        optimizer.build(variables)
        return optimizer

    def test_they_are_there_within_and_the_trained_weights_afterwards(self):
        variables = new_variables()
        optimizer = self.optimizer_of(variables)
        values = []
        for gradients in new_gradients(3):
            optimizer.apply(gradients, variables)
            values.append([variable.numpy() for variable in variables])
        with optimizer.averaged():
            for variable, *steps in zip(variables, *values, strict=True):
                expected = 0.25 * steps[0] + 0.25 * steps[1] + 0.5 * steps[2]
                np.testing.assert_allclose(variable.numpy(), expected, atol=1e-6)
        for variable, trained in zip(variables, values[-1], strict=True):
            np.testing.assert_array_equal(variable.numpy(), trained)

    def test_an_error_within_brings_the_trained_weights_back(self):
        variables = new_variables()
        optimizer = self.optimizer_of(variables)
        optimizer.apply(next(new_gradients(1)), variables)
        variables[1].assign(variables[1] + 1.0)
        trained = variables[1].numpy()
        with pytest.raises(KeyError), optimizer.averaged():
            raise KeyError
        np.testing.assert_array_equal(variables[1].numpy(), trained)

    def test_without_them_the_weights_are_the_weights(self):
        variables = new_variables()
        optimizer = AdamWeightDecay(0.1)
        optimizer.build(variables)
        with optimizer.averaged():
            np.testing.assert_array_equal(variables[0].numpy(), new_variables()[0].numpy())

    def test_a_first_step_that_is_passed_over_leaves_them_at_the_weights(self):
        variables = new_variables()
        optimizer = self.optimizer_of(variables, skip_nonfinite_steps=True)
        bad = [tf.fill(tuple(variable.shape), float("nan")) for variable in variables]
        tf.function(lambda: optimizer.apply(bad, variables))()
        with optimizer.averaged():
            np.testing.assert_array_equal(variables[1].numpy(), new_variables()[1].numpy())

    @pytest.mark.parametrize("ends", [True, False])
    def test_at_the_end_of_fit(self, ends):
        variables = new_variables()
        optimizer = self.optimizer_of(variables, ends_with_averages=ends)
        for gradients in new_gradients(2):
            optimizer.apply(gradients, variables)
        trained = variables[1].numpy()
        optimizer.finalize_variable_values(variables)
        assert np.array_equal(variables[1].numpy(), trained) is not ends

    def test_serialization(self):
        optimizer = AdamWeightDecay(0.1, use_ema=True, ema_momentum=0.5, ends_with_averages=False)
        again = AdamWeightDecay.from_config(optimizer.get_config())
        assert (again.use_ema, again.ema_momentum, again.ends_with_averages) == (True, 0.5, False)


class TestWeightDecay:
    @pytest.fixture
    def changed(self):
        """Each weight of a small BERT, all ones at first, after one step with zero gradients."""
        architecture = BertArchitecture(
            vocab_size=10, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16,
            max_position_embeddings=8,
        )  # fmt: skip
        model = TFBertForSequenceClassification(architecture)
        model.build()
        for variable in model.trainable_variables:
            variable.assign(ops.ones_like(variable))
        optimizer, _ = create_optimizer(1.0, 10, 0, weight_decay_rate=0.5)
        optimizer.apply([ops.zeros_like(v) for v in model.trainable_variables], model.trainable_variables)
        return {variable.path.split("/", 1)[1]: variable.numpy() for variable in model.trainable_variables}

    def test_kernels_and_embeddings_shrink(self, changed):
        decayed = {path: value for path, value in changed.items() if path.endswith(("/kernel", "/embeddings"))}
        assert len(decayed) == 3 + 2 * 4 + 2
        for path, value in decayed.items():
            np.testing.assert_array_equal(value, 0.5, err_msg=path)

    def test_biases_and_layer_norms_stay(self, changed):
        kept = {path: value for path, value in changed.items() if path.endswith(("/bias", "/gamma", "/beta"))}
        assert len(kept) == 2 + 2 * (4 + 4) + 2
        for path, value in kept.items():
            np.testing.assert_array_equal(value, 1.0, err_msg=path)

    def test_every_weight_is_one_of_the_two(self, changed):
        assert len(changed) == 13 + 20

    def test_own_patterns(self):
        variables = new_variables()
        before = [variable.numpy() for variable in variables]
        optimizer = AdamWeightDecay(
            learning_rate=1.0, weight_decay=0.5, exclude_from_weight_decay=["^kernel$", "table"]
        )
        optimizer.apply([ops.zeros_like(variable) for variable in variables], variables)
        for variable, old, share in zip(variables, before, (1.0, 1.0, 0.5), strict=True):
            np.testing.assert_allclose(variable.numpy(), old * share, rtol=1e-6, err_msg=variable.path)


class TestCreateOptimizer:
    def test_arguments_arrive(self):
        optimizer, schedule = create_optimizer(
            1e-3, 10, 2, weight_decay_rate=0.3, adam_beta1=0.8, adam_beta2=0.95, adam_epsilon=1e-5,
            adam_global_clipnorm=2.0,
        )  # fmt: skip
        config = optimizer.get_config()
        assert {name: config[name] for name in ("weight_decay", "beta_1", "beta_2", "epsilon", "global_clipnorm")} == {
            "weight_decay": 0.3, "beta_1": 0.8, "beta_2": 0.95, "epsilon": 1e-5, "global_clipnorm": 2.0,
        }  # fmt: skip
        assert schedule.get_config() == {"peak_learning_rate": 1e-3, "num_train_steps": 10, "num_warmup_steps": 2}

    def test_learning_rate_of_the_optimizer_is_the_schedule(self):
        optimizer, schedule = create_optimizer(1e-3, 10, 2)
        variables = new_variables()
        for gradients in new_gradients(3):
            assert float(optimizer.learning_rate) == float(schedule(int(optimizer.iterations)))
            optimizer.apply(gradients, variables)

    def test_first_step_of_a_warmup_moves_nothing(self):
        optimizer, _ = create_optimizer(1.0, 10, 2, weight_decay_rate=0.1)
        variables = new_variables()
        before = [variable.numpy() for variable in variables]
        optimizer.apply(next(new_gradients(1)), variables)
        for variable, old in zip(variables, before, strict=True):
            np.testing.assert_array_equal(variable.numpy(), old)


class TestSerialization:
    @pytest.fixture
    def optimizer(self):
        schedule = WarmupLinearDecay(1e-3, 10, 2)
        return AdamWeightDecay(learning_rate=schedule, weight_decay=0.1, exclude_from_weight_decay=["/odd$"])

    def test_from_config(self, optimizer):
        loaded = AdamWeightDecay.from_config(optimizer.get_config())
        assert loaded.get_config() == optimizer.get_config()
        assert loaded.excluded_patterns == ("/odd$",)

    def test_keras_serialize(self, optimizer):
        loaded = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
        assert type(loaded) is AdamWeightDecay
        assert loaded.get_config() == optimizer.get_config()

    def test_state_continues_where_it_stood(self):
        variables, gradients = new_variables(), list(new_gradients(4))
        optimizer = AdamWeightDecay(learning_rate=0.01)
        for gradient in gradients[:2]:
            optimizer.apply(gradient, variables)
        copies = [keras.Variable(variable.numpy(), name=variable.name) for variable in variables]
        loaded = AdamWeightDecay.from_config(optimizer.get_config())
        loaded.build(copies)
        for mine, theirs in zip(loaded.variables, optimizer.variables, strict=True):
            mine.assign(theirs)
        for gradient in gradients[2:]:
            optimizer.apply(gradient, variables)
            loaded.apply(gradient, copies)
        for variable, copy in zip(variables, copies, strict=True):
            np.testing.assert_array_equal(variable.numpy(), copy.numpy())

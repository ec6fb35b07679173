"""The fast paths against the keras.ops forms that other backends run: values and gradients."""

import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from tf_finetune.bert import kernels

ROWS, FEATURES = 37, 24


def values(*shape, seed=0, dtype="float32"):
    return tf.cast(np.random.default_rng(seed).normal(size=shape) * 2, dtype)


def with_gradients(function, *inputs):
    """The result in float64, and the gradients of a weighted sum of it."""
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        result = function(*inputs)
        total = tf.reduce_sum(tf.cast(result, "float64") * values(*result.shape, seed=9, dtype="float64"))
    found = tape.gradient(total, inputs)
    return [np.array(tf.cast(one, "float64")) for one in (result, *found)]


CASES = {
    "gelu": (kernels.gelu, lambda x: ops.gelu(x, approximate=False), [(ROWS, FEATURES)]),
    "add_bias": (kernels.add_bias, ops.add, [(ROWS, FEATURES), (FEATURES,)]),
    "layer_norm": (
        lambda x, gamma, beta, training: kernels.layer_norm(x, gamma, beta, epsilon=1e-6, training=training),
        lambda x, gamma, beta: ops.layer_normalization(x, gamma, beta, axis=-1, epsilon=1e-6),
        [(ROWS, FEATURES), (FEATURES,), (FEATURES,)],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_same_values_and_gradients_as_the_twin(name):
    fast, twin, shapes = CASES[name]
    inputs = [values(*shape, seed=seed) for seed, shape in enumerate(shapes)]
    expected = with_gradients(twin, *[tf.cast(one, "float64") for one in inputs])
    for one, other in zip(with_gradients(lambda *x: fast(*x, training=True), *inputs), expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("name", CASES)
def test_without_training_it_is_the_twin(name):
    fast, twin, shapes = CASES[name]
    inputs = [values(*shape, seed=seed) for seed, shape in enumerate(shapes)]
    np.testing.assert_array_equal(fast(*inputs, training=None), twin(*inputs))


@pytest.mark.parametrize("name", ["gelu", "layer_norm"])
def test_bfloat16_is_rounded_once(name):
    """Within half a unit in the last place of the exact result: nothing is rounded on the way."""
    fast, twin, shapes = CASES[name]
    inputs = [values(*shapes[0], dtype="bfloat16"), *(values(*shape, seed=3) for shape in shapes[1:])]
    exact = np.array(twin(*[tf.cast(one, "float64") for one in inputs]))
    got = fast(*inputs, training=True)
    assert got.dtype == "bfloat16"
    np.testing.assert_allclose(np.array(tf.cast(got, "float64")), exact, rtol=2**-8 * 1.01, atol=1e-6)


def test_layer_norm_of_equal_values_is_finite():
    x = tf.fill([3, FEATURES], 7.0)
    for one in with_gradients(
        lambda x: kernels.layer_norm(x, tf.ones(FEATURES), tf.zeros(FEATURES), epsilon=1e-12, training=True), x
    ):
        assert np.isfinite(one).all()


class TestDropout:
    def dropped(self, rate, *shape, seed=(1, 2), dtype="float32"):
        return np.array(tf.cast(kernels.dropout(tf.ones(shape, dtype), rate, tf.constant(seed, "uint32")), "float32"))

    @pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
    def test_rate_and_scale(self, rate):
        result = self.dropped(rate, 1000, 1000)
        assert (result == 0).mean() == pytest.approx(rate, abs=0.002)  # four deviations
        assert set(np.unique(result)) == {np.float32(0), np.float32(65536 / (65536 - round(rate * 65536)))}
        assert result.mean() == pytest.approx(1, abs=0.013)

    @pytest.mark.parametrize("shape", [(1,), (2, 3), (5, 7, 11), (4, 4)])
    def test_any_shape(self, shape):
        assert self.dropped(0.5, *shape).shape == shape

    def test_nothing_but_the_seed_decides(self):
        np.testing.assert_array_equal(self.dropped(0.3, 999), self.dropped(0.3, 999))
        for other in ((1, 3), (2, 2)):
            agreeing = (self.dropped(0.5, 10_000) == self.dropped(0.5, 10_000, seed=other)).mean()
            assert agreeing == pytest.approx(0.5, abs=0.02)

    def test_neighbours_are_independent(self):
        """Four values come from one random number."""
        zero = self.dropped(0.5, 400_000) == 0
        for distance in (1, 2, 3, 4, 8):
            assert (zero[:-distance] == zero[distance:]).mean() == pytest.approx(0.5, abs=0.004)

    def test_gradient_passes_where_the_value_does(self):
        x = values(50, 20)
        with tf.GradientTape() as tape:
            tape.watch(x)
            result = kernels.dropout(x, 0.4, tf.constant([5, 6], "uint32"))
        np.testing.assert_allclose(tape.gradient(result, x) * x, result, rtol=1e-6)

    def test_all_is_dropped(self):
        assert not self.dropped(1.0, 10).any()

    def test_shapes_that_a_graph_does_not_know(self):
        function = tf.function(
            lambda x: kernels.dropout(x, 0.5, tf.constant([1, 2], "uint32")),
            input_signature=[tf.TensorSpec([None, None], "bfloat16")],
        )
        eager = kernels.dropout(tf.ones((7, 9), "bfloat16"), 0.5, tf.constant([1, 2], "uint32"))
        np.testing.assert_array_equal(function(tf.ones((7, 9), "bfloat16")), eager)

    def test_a_model_draws_anew_each_step(self):
        from tf_finetune.bert.layers import Dropout

        layer = Dropout(0.5)
        first, second = (np.array(layer(tf.ones((100, 100)), training=True)) for _ in range(2))
        assert (first == second).mean() == pytest.approx(0.5, abs=0.05)
        np.testing.assert_array_equal(layer(tf.ones((2, 2)), training=False), np.ones((2, 2)))

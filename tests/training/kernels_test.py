import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_finetune.training import kernels


class TestDenseGradient:
    def test_rows_that_come_twice_are_summed(self):
        gradient = tf.IndexedSlices(tf.constant([[1.0], [2.0], [5.0]]), tf.constant([2, 2, 0]), tf.constant([4, 1]))
        assert kernels.dense_gradient(gradient).numpy().tolist() == [[5], [0], [3], [0]]

    @pytest.mark.parametrize("gradient", [None, tf.constant([1.0])], ids=["none", "dense"])
    def test_others_stay(self, gradient):
        assert kernels.dense_gradient(gradient) is gradient


class TestSummedRows:
    def test_rows_are_distinct_and_dense_they_are_the_same(self):
        gradient = tf.IndexedSlices(tf.constant([[1.0], [2.0], [5.0]]), tf.constant([2, 2, 0]), tf.constant([4, 1]))
        summed = kernels.summed_rows(gradient)
        assert sorted(summed.indices.numpy().tolist()) == [0, 2]
        assert kernels.dense_gradient(summed).numpy().tolist() == [[5], [0], [3], [0]]

    @pytest.mark.parametrize("gradient", [None, tf.constant([1.0])], ids=["none", "dense"])
    def test_others_stay(self, gradient):
        assert kernels.summed_rows(gradient) is gradient


class TestClippedByGlobalNorm:
    def gradients(self):
        sparse = tf.IndexedSlices(tf.constant([[3.0], [0.0]]), tf.constant([2, 0]), tf.constant([4, 1]))
        return [sparse, None, tf.constant([0.0, 4.0])]

    def test_scaled_down_together(self):
        sparse, none, dense = kernels.clipped_by_global_norm(
            self.gradients(), 2.5, kernels.global_norm(self.gradients())
        )
        assert none is None
        np.testing.assert_allclose(kernels.dense_gradient(sparse), [[0], [0], [1.5], [0]])
        np.testing.assert_allclose(dense, [0, 2])

    def test_small_ones_stay(self):
        sparse, _, dense = kernels.clipped_by_global_norm(self.gradients(), 5.5, kernels.global_norm(self.gradients()))
        np.testing.assert_array_equal(sparse.values, [[3], [0]])
        np.testing.assert_array_equal(dense, [0, 4])

    @pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
    def test_one_that_is_not_finite_shows(self, value):
        for gradient in (tf.constant([value, 1.0]), tf.constant([value], tf.bfloat16)):
            assert not np.isfinite(kernels.global_norm([*self.gradients(), gradient]))

    def test_norm(self):
        assert float(kernels.global_norm(self.gradients())) == pytest.approx(5.0)


class TestFusedAdamUpdate:
    @pytest.mark.parametrize("step", [1, 7])
    def test_by_hand(self, step):
        """Kingma and Ba 2015, the last lines of section 2: epsilon hat outside the bias correction."""
        weight, momentum, velocity, gradient = 2.0, 0.5, 0.25, -3.0
        states = [keras.Variable(np.float32([value])) for value in (weight, momentum, velocity)]
        kernels.fused_adam_update(
            *states, tf.constant([gradient]), learning_rate=0.1, step=step, beta_1=0.8, beta_2=0.9, epsilon=0.01
        )
        momentum, velocity = 0.8 * momentum + 0.2 * gradient, 0.9 * velocity + 0.1 * gradient**2
        rate = 0.1 * np.sqrt(1 - 0.9**step) / (1 - 0.8**step)
        expected = [weight - rate * momentum / (np.sqrt(velocity) + 0.01), momentum, velocity]
        np.testing.assert_allclose([float(state[0]) for state in states], expected, rtol=1e-5)

    def test_bfloat16_gradient(self):
        states = [keras.Variable(np.float32([value])) for value in (2.0, 0.0, 0.0)]
        kernels.fused_adam_update(
            *states, tf.constant([1.0], tf.bfloat16), learning_rate=0.1, step=1, beta_1=0.9, beta_2=0.999, epsilon=1e-8
        )
        assert float(states[0][0]) == pytest.approx(1.9, rel=1e-5)

"""Backend-specific fast paths of the optimizer, each with its keras.ops twin and a test that they agree."""

import keras


def dense_gradient(gradient):
    """A sparse gradient as a whole tensor; others as they are (TensorFlow only)."""
    import tensorflow as tf

    return tf.convert_to_tensor(gradient) if isinstance(gradient, tf.IndexedSlices) else gradient


def summed_rows(gradient):
    """A sparse gradient with the rows that come more than once summed; others as they are (TensorFlow only)."""
    import tensorflow as tf

    if not isinstance(gradient, tf.IndexedSlices):
        return gradient
    rows, places = tf.unique(gradient.indices)
    values = tf.math.unsorted_segment_sum(gradient.values, places, tf.size(rows))
    return tf.IndexedSlices(values, rows, gradient.dense_shape)


def global_norm(gradients: list):
    """The L2 norm of all gradients together, float32, in one pass (TensorFlow only).

    Not finite where one of them is not. The rows of sparse ones must be distinct.
    """
    import tensorflow as tf

    halves = [
        tf.nn.l2_loss(tf.cast(gradient.values if isinstance(gradient, tf.IndexedSlices) else gradient, tf.float32))
        for gradient in gradients
        if gradient is not None
    ]
    return tf.sqrt(2.0 * tf.add_n(halves))


def clipped_by_global_norm(gradients: list, limit: float, norm) -> list:
    """All gradients scaled down together so that their norm is `limit` at most, in one pass (TensorFlow only).

    Args:
        gradients: sparse ones are scaled by the rows they have.
        limit: as said.
        norm: what `global_norm` gave.
    """
    import tensorflow as tf

    scale = limit / tf.maximum(norm, limit)

    def scaled(gradient):
        if gradient is None:
            return None
        if isinstance(gradient, tf.IndexedSlices):
            return tf.IndexedSlices(scaled(gradient.values), gradient.indices, gradient.dense_shape)
        return gradient * tf.cast(scale, gradient.dtype)

    return [scaled(gradient) for gradient in gradients]


def fused_adam_update(variable, momentum, velocity, gradient, *, learning_rate, step, beta_1, beta_2, epsilon):
    """One Adam step on one weight in one pass over memory (TensorFlow only).

    The twin is `keras.optimizers.Adam.update_step`, which makes about ten passes. All states are
    float32 variables; `step` counts from 1.
    """
    import tensorflow as tf

    def handle(value):
        return (value.value if isinstance(value, keras.Variable) else value).handle

    step = tf.cast(step, tf.float32)
    tf.raw_ops.ResourceApplyAdam(
        var=handle(variable),
        m=handle(momentum),
        v=handle(velocity),
        beta1_power=tf.pow(tf.constant(beta_1, tf.float32), step),
        beta2_power=tf.pow(tf.constant(beta_2, tf.float32), step),
        lr=tf.cast(learning_rate, tf.float32),
        beta1=beta_1,
        beta2=beta_2,
        epsilon=epsilon,
        grad=tf.cast(dense_gradient(gradient), tf.float32),  # a sparse one becomes dense only here
    )

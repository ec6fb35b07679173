"""Backend-specific fast paths of the optimizer, each with its keras.ops twin and a test that they agree."""

import keras


def dense_gradient(gradient):
    """A sparse gradient with the rows that come more than once summed; others as they are (TensorFlow only)."""
    import tensorflow as tf

    return tf.convert_to_tensor(gradient) if isinstance(gradient, tf.IndexedSlices) else gradient


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
        grad=tf.cast(dense_gradient(gradient), tf.float32),
    )

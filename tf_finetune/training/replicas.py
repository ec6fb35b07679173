"""Weights of which every device has a copy: what tf.distribute asks of the step that changes them (TensorFlow only)."""

from collections.abc import Callable, Sequence

import keras


def is_replica() -> bool:
    """Whether this is one device's share of a step, within `strategy.run`."""
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    return tf.distribute.has_strategy() and tf.distribute.get_replica_context() is not None


def has_strategy() -> bool:
    """Whether what is built here has a copy on every device."""
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    return tf.distribute.has_strategy()


def summed(gradients: Sequence) -> list:
    """The sums of dense gradients over all replicas, the same bits on each: one all-reduce."""
    import tensorflow as tf

    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, list(gradients))


def agreed(value):
    """One replica's value for all: the mean of theirs. A decision by it is the same everywhere."""
    import tensorflow as tf

    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.MEAN, value)


def on_all_copies(decide: Callable, *values) -> None:
    """Calls `decide(strategy, *values)` once for all replicas, each of the values being all of theirs.

    Where XLA compiles each replica by itself it is called in each, which comes to the same.
    """
    import tensorflow as tf

    tf.__internal__.distribute.interim.maybe_merge_call(decide, tf.distribute.get_strategy(), *values)


def first_of(strategy, values):
    """The first replica's."""
    return strategy.experimental_local_results(values)[0]

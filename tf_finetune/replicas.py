"""Weights of which every device has a copy: what a step that is shared out has to see to (tf.distribute)."""

from collections.abc import Callable, Sequence

import keras

# Between the seeds of two replicas; below 2**31, which Keras takes them modulo.
SEED_STRIDE = 15_485_863


def is_replica() -> bool:
    """Whether this is one device's share of a step, within `strategy.run`."""
    if not has_strategy():
        return False
    import tensorflow as tf

    return tf.distribute.get_replica_context() is not None


def has_strategy() -> bool:
    """Whether what is built here has a copy on every device."""
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    return tf.distribute.has_strategy()


def summed(values: Sequence) -> list:
    """The sums of dense values over all replicas, the same bits on each: one all-reduce."""
    return _reduced("SUM", list(values))


def agreed(value):
    """One value for all replicas: the mean of theirs. A decision by it is the same everywhere."""
    return _reduced("MEAN", value)


def _reduced(how: str, values):
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    return values if context.num_replicas_in_sync == 1 else context.all_reduce(how, values)


def on_all_copies(decide: Callable, *values) -> None:
    """Calls `decide(strategy, *values)` once for all replicas, each of the values being all of theirs.

    Where XLA compiles each replica by itself it is called in each, which comes to the same.
    """
    import tensorflow as tf

    tf.__internal__.distribute.interim.maybe_merge_call(decide, tf.distribute.get_strategy(), *values)


def first_of(strategy, values):
    """The first replica's."""
    return strategy.experimental_local_results(values)[0]


def own_seed(seed):
    """The seed itself, and another one on every other replica, whose generators are all alike."""
    if not is_replica():
        return seed
    import tensorflow as tf

    replica = tf.cast(tf.distribute.get_replica_context().replica_id_in_sync_group, seed.dtype)
    return seed + tf.stack([replica * SEED_STRIDE, tf.zeros_like(replica)])


def metrics_of_all(variables: Sequence[keras.Variable]) -> keras.StatelessScope:
    """Within it metrics give what they have counted on all replicas together; one alone sees its own share only."""
    import tensorflow as tf

    counts = [variable for variable in variables if variable.aggregation == "sum"]
    of_all = summed([tf.convert_to_tensor(variable.value) for variable in counts])
    return keras.StatelessScope(state_mapping=list(zip(counts, of_all, strict=True)))

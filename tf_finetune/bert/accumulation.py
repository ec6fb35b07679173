"""A training step whose batch is computed in pieces, one after the other (TensorFlow)."""

from typing import Any

import keras


def accumulated_step(model: keras.Model, data, pieces: int) -> dict[str, Any]:
    """Keras's `train_step` with the memory of one piece and the gradient of the whole batch.

    Each piece's loss counts by its share of the batch's examples, so that pieces of different sizes, and examples with
    weights, add up to the batch's own loss. Under a tf.distribute strategy each replica computes its own rows in
    pieces, and the gradients are summed over the replicas once, at the end.

    Args:
        model: compiled and built.
        data: inputs (a dict, or token ids alone), labels, and weights of the examples if there are some.
        pieces: how many at most; a batch of fewer examples has fewer.
    """
    import tensorflow as tf

    inputs, labels, weights = keras.utils.unpack_x_y_sample_weight(data)
    examples = tf.shape(labels)[0]
    size = tf.math.maximum(1, (examples + pieces - 1) // pieces)
    variables = model.trainable_variables

    def piece(first, gradients, logits, loss):
        def rows(values):
            return values[first : first + size]

        some_labels, some_weights = rows(labels), None if weights is None else rows(weights)
        share = tf.cast(tf.shape(some_labels)[0], tf.float32) / tf.cast(examples, tf.float32)
        with tf.GradientTape() as tape:
            answered = model(tf.nest.map_structure(rows, inputs), training=True)
            of_piece = share * model.compute_loss(y=some_labels, y_pred=answered, sample_weight=some_weights)
            scaled = model.optimizer.scale_loss(of_piece)
        found = tape.gradient(
            scaled, [variable.value for variable in variables], unconnected_gradients=tf.UnconnectedGradients.ZERO
        )
        # Compiled operations and sparse gradients do not know their shapes.
        found = [tf.ensure_shape(tf.convert_to_tensor(one), v.shape) for one, v in zip(found, variables, strict=True)]
        gradients = [total + one for total, one in zip(gradients, found, strict=True)]
        return first + size, gradients, tf.concat([logits, answered], axis=0), loss + of_piece

    num_labels = model.architecture.num_labels
    nothing = 0, [tf.zeros_like(variable.value) for variable in variables], tf.zeros([0, num_labels]), 0.0
    shapes = tf.TensorShape([]), [tf.TensorShape(v.shape) for v in variables], tf.TensorShape([None, num_labels])
    _, gradients, logits, loss = tf.while_loop(
        lambda first, *_: first < examples,
        piece,
        nothing,
        shape_invariants=(*shapes, tf.TensorShape([])),
        parallel_iterations=1,  # another piece at the same time would take its memory, too
    )
    # Keras divides a loss by the number of replicas, whose gradients are summed.
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    model._loss_tracker.update_state(loss * replicas, sample_weight=examples)
    model.optimizer.apply_gradients(zip(gradients, variables, strict=True))
    return model.compute_metrics(inputs, labels, logits, sample_weight=weights)

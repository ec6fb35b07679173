"""The training step on JAX: a function of the state of a model, computed whole or in pieces."""

from typing import Any

import keras


def jax_step(model: keras.Model, step, state: tuple, data) -> tuple[dict[str, Any], tuple]:
    """A step of Keras's or `accumulated_step`, after which a loss that is not finite is not in the metrics.

    Args:
        model: compiled and built.
        step: the function of (state, data) that computes it.
        state: Keras's: values of the trainable, other, optimizer's and metrics' variables.
        data: of one batch.

    Returns:
        The logs, with "skipped_steps" and "skipped_in_a_row" where the optimizer counts them, and the new state.
    """
    from jax import numpy as jnp

    logs, (*others, optimizer, metrics) = step(state, data)
    if getattr(model.optimizer, "skip_nonfinite_steps", False):
        is_finite = jnp.isfinite(logs["loss"])
        metrics = [jnp.where(is_finite, new, old) for new, old in zip(metrics, state[-1], strict=True)]
        values = dict(zip((id(variable) for variable in model.optimizer.variables), optimizer, strict=True))
        counts = model.optimizer.skipped_steps, model.optimizer.skipped_in_a_row
        logs = logs | {count.name: values[id(count)] for count in counts}
    return logs, (*others, optimizer, metrics)


def whole(answered: tuple) -> tuple:
    """What Keras's `predict_step` gave; where several processes share a batch, with the rows of all in each of them."""
    import jax

    if jax.process_count() == 1:
        return answered
    outputs, others = answered
    mesh = keras.distribution.distribution().device_mesh.backend_mesh
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    return jax.lax.with_sharding_constraint(outputs, everywhere), others


def accumulated_step(model: keras.Model, state: tuple, data, pieces: int) -> tuple[dict[str, Any], tuple]:
    """Keras's `train_step` with the memory of one piece and the gradient of the whole batch.

    Each piece has every so-manieth row, so that of a batch that devices share each piece is shared as well. What is
    missing in the last row of pieces is filled up with rows of weight 0.

    Args:
        model, state, data: as of `jax_step`.
        pieces: how many at most; a batch of fewer examples has fewer.
    """
    import jax
    from jax import numpy as jnp

    trainable, others, optimizer, metrics = state
    inputs, labels, weights = keras.utils.unpack_x_y_sample_weight(data)
    rows = labels.shape[0]
    size = -(-rows // min(pieces, rows))
    pieces = -(-rows // size)

    def shared_out(values):
        """(rows, ...) -> (pieces, size, ...)"""
        values = jnp.pad(values, [(0, size * pieces - rows)] + [(0, 0)] * (values.ndim - 1))
        return jnp.swapaxes(values.reshape(size, pieces, *values.shape[1:]), 0, 1)

    whole = inputs, labels, jnp.ones(rows) if weights is None else weights
    gradients_of = jax.value_and_grad(model.compute_loss_and_updates, has_aux=True)

    def piece(carried, part):
        others, gradients, loss = carried
        some_inputs, some_labels, some_weights = part
        options = {"training": True, "optimizer_variables": optimizer}
        (_, (unscaled, answered, others, _)), found = gradients_of(
            trainable, others, metrics, some_inputs, some_labels, some_weights, **options
        )
        gradients = [total + one for total, one in zip(gradients, found, strict=True)]
        return (others, gradients, loss + unscaled), answered

    nothing = others, [jnp.zeros_like(value) for value in trainable], jnp.zeros(())
    (others, gradients, loss), answered = jax.lax.scan(piece, nothing, jax.tree.map(shared_out, whole))
    share = size / rows  # a piece's loss is the mean over its rows
    gradients, loss = [share * gradient for gradient in gradients], share * loss
    logits = jnp.swapaxes(answered, 0, 1).reshape(size * pieces, -1)[:rows]
    trainable, optimizer = model.optimizer.stateless_apply(optimizer, gradients, trainable)
    logs, metrics = model._update_metrics_variables(metrics, loss, inputs, labels, logits, weights)
    return logs, (trainable, others, optimizer, metrics)

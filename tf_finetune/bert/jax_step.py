"""The training step on JAX: a function of the state of a model, computed whole or in pieces."""

import functools
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
    """What Keras's `predict_step` gave; where several processes share a batch, with the rows of all in each of them.

    Without a distribution weights and rows are this process's own, and so are the answers: nobody is waited for.
    """
    import jax

    distribution = keras.distribution.distribution()
    if jax.process_count() == 1 or distribution is None:
        return answered
    outputs, others = answered
    mesh = distribution.device_mesh.backend_mesh
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    return jax.lax.with_sharding_constraint(outputs, everywhere), others


def accumulated_step(model: keras.Model, state: tuple, data, pieces: int) -> tuple[dict[str, Any], tuple]:
    """Keras's `train_step` with the memory of one piece and the gradient of the whole batch.

    Devices that share a batch each compute their own rows in pieces, with dropout of their own, and of the gradients
    the mean over the devices is taken once, at the end: left to XLA they would be exchanged for every piece.

    Args:
        model, state, data: as of `jax_step`.
        pieces: how many at most; a device of fewer examples has fewer.
    """
    from jax import numpy as jnp

    trainable, others, optimizer, metrics = state
    inputs, labels, weights = keras.utils.unpack_x_y_sample_weight(data)
    rows = inputs, labels, jnp.ones(labels.shape[0]) if weights is None else weights
    in_pieces = functools.partial(_in_pieces, model, pieces)
    distribution = keras.distribution.distribution()
    if isinstance(distribution, keras.distribution.DataParallel):
        in_pieces = _on_each_device(model, in_pieces, distribution)
    loss, gradients, others, logits = in_pieces(state, rows)
    trainable, optimizer = model.optimizer.stateless_apply(optimizer, gradients, trainable)
    logs, metrics = model._update_metrics_variables(metrics, loss, inputs, labels, logits, weights)
    return logs, (trainable, others, optimizer, metrics)


def _in_pieces(model: keras.Model, pieces: int, state: tuple, rows: tuple) -> tuple:
    """Mean loss and gradients of some rows (inputs, labels, weights), one piece after the other.

    What is missing in the last piece is filled up with rows of weight 0.

    Returns:
        The loss, the gradients, the other variables and the logits (rows, labels).
    """
    import jax
    from jax import numpy as jnp

    trainable, others, optimizer, metrics = state
    number = rows[-1].shape[0]
    size = -(-number // min(pieces, number))
    pieces = -(-number // size)
    gradients_of = jax.value_and_grad(model.compute_loss_and_updates, has_aux=True)

    def shared_out(values):
        """(rows, ...) -> (pieces, size, ...)"""
        values = jnp.pad(values, [(0, size * pieces - number)] + [(0, 0)] * (values.ndim - 1))
        return values.reshape(pieces, size, *values.shape[1:])

    def piece(carried, part):
        others, gradients, loss = carried
        options = {"training": True, "optimizer_variables": optimizer}
        (_, (unscaled, answered, others, _)), found = gradients_of(trainable, others, metrics, *part, **options)
        gradients = [total + one for total, one in zip(gradients, found, strict=True)]
        return (others, gradients, loss + unscaled), answered

    nothing = others, [jnp.zeros_like(value) for value in trainable], jnp.zeros(())
    (others, gradients, loss), answered = jax.lax.scan(piece, nothing, jax.tree.map(shared_out, rows))
    share = size / number  # a piece's loss is the mean over its rows
    logits = answered.reshape(size * pieces, -1)[:number]
    return share * loss, [share * gradient for gradient in gradients], others, logits


def _on_each_device(model: keras.Model, in_pieces, distribution: keras.distribution.DataParallel):
    """`in_pieces` of the rows of each device by itself, and then the means of losses and gradients.

    The seeds of dropout are other ones on each device, and go on alike, by the number of pieces.
    """
    import jax

    axis = distribution.batch_dim_name
    is_seed = [variable.name == "seed_generator_state" for variable in model.non_trainable_variables]
    everywhere, by_rows = jax.sharding.PartitionSpec(), jax.sharding.PartitionSpec(axis)

    def on_one(state, rows):
        trainable, others, *rest = state
        own = [
            jax.random.fold_in(value, jax.lax.axis_index(axis)) if seed else value
            for value, seed in zip(others, is_seed, strict=True)
        ]
        loss, gradients, after, logits = in_pieces((trainable, own, *rest), rows)
        loss, gradients = jax.lax.pmean((loss, gradients), axis)
        others = [
            value + (new - old) if seed else new
            for value, old, new, seed in zip(others, own, after, is_seed, strict=True)
        ]
        return loss, gradients, others, logits

    return jax.shard_map(
        on_one,
        mesh=distribution.device_mesh.backend_mesh,
        in_specs=(everywhere, by_rows),
        out_specs=(everywhere, everywhere, everywhere, by_rows),
        check_vma=False,
    )

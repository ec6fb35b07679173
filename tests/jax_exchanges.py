"""Compiles steps of JAX in pieces for four virtual devices and says what they send each other, and what they drop, as
json: for tests/bert/jax_step_test.py."""

import functools
import json
import os
import re

import numpy as np

COLLECTIVES = "all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute"
ROWS = 20


def compiled_model(pieces):
    import keras
    from tiny_forms import tiny_model

    model = tiny_model(hidden_dropout_prob=0.5, attention_probs_dropout_prob=0.5)
    model.gradient_accumulation_enable(pieces)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def state_of(model):
    of_model = model.trainable_variables, model.non_trainable_variables
    groups = *of_model, model.optimizer.variables, model.metrics_variables
    return tuple([variable.value for variable in group] for group in groups)


def one_text_in_every_row():
    """Inputs, labels and weights."""
    ids = np.full((ROWS, 40), 7, np.int32)
    inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    return inputs, np.zeros(ROWS, np.int32), np.ones(ROWS, np.float32)


def exchanges(pieces, data):
    """Of each exchange in the program of a step, whether it is within a loop, and how many numbers it sends."""
    import jax

    model = compiled_model(pieces)
    step = jax.jit(model.train_step).lower(state_of(model), data).compile()
    found, entry = [], False
    for line in step.as_text().splitlines():
        if line.endswith("{"):
            entry = line.startswith("ENTRY")
        if sent := re.search(rf"= (.*) ({COLLECTIVES})(-start)?\(", line):
            shapes = re.findall(r"[a-z]\w*\[([\d,]*)\]", sent[1])
            found.append([not entry, sum(int(np.prod([int(n) for n in shape.split(",") if n])) for shape in shapes)])
    return found


def seeds(model, values):
    named = zip(model.non_trainable_variables, values, strict=True)
    return [np.asarray(value).tolist() for variable, value in named if variable.name == "seed_generator_state"]


def answers(model, in_pieces, data):
    """The seeds after a step, and the logits it came to."""
    import jax

    _, _, others, logits = jax.jit(in_pieces)(state_of(model), data)
    return {"seeds": seeds(model, others), "logits": np.asarray(logits).tolist()}


def main():
    import jax
    import keras

    from tf_finetune.bert import jax_step

    mesh = keras.distribution.DeviceMesh((4,), ("batch",), keras.distribution.list_devices())
    distribution = keras.distribution.DataParallel(device_mesh=mesh, auto_shard_dataset=False)
    by_rows = jax.sharding.NamedSharding(mesh.backend_mesh, jax.sharding.PartitionSpec("batch"))
    with distribution.scope():
        data = jax.device_put(one_text_in_every_row(), by_rows)
        model = compiled_model(2)
        alone = functools.partial(jax_step._in_pieces, model, 2)
        said = {
            "weights": sum(int(np.prod(variable.shape)) for variable in model.trainable_variables),
            "exchanges": {pieces: exchanges(pieces, data) for pieces in (1, 2, 3)},
            "seeds": seeds(model, [variable.value for variable in model.non_trainable_variables]),
            "alone": answers(model, alone, data),
            "shared": answers(model, jax_step._on_each_device(model, alone, distribution), data),
        }
    print(json.dumps(said))


if __name__ == "__main__":
    flags = "--xla_force_host_platform_device_count=4 --xla_backend_optimization_level=0"
    os.environ.update(XLA_FLAGS=flags, JAX_PLATFORMS="cpu", KERAS_BACKEND="jax")
    main()

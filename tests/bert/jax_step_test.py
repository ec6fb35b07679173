"""A step of JAX in pieces on four devices: what they send each other, and what they drop."""

import json
import os
import subprocess
import sys

import pytest
from bert_cases import __file__ as beside

SCRIPT = r"""
import functools, json, re, sys
sys.path.insert(0, sys.argv[1])
import jax
import keras
import numpy as np
from tiny_forms import tiny_model
from tf_finetune.bert import jax_step

COLLECTIVES = "all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute"

def state_of(model):
    of_model = model.trainable_variables, model.non_trainable_variables
    groups = *of_model, model.optimizer.variables, model.metrics_variables
    return tuple([variable.value for variable in group] for group in groups)

def data_of(spread):
    ids = np.full((20, 40), 7, np.int32)
    inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    return jax.device_put((inputs, np.zeros(20, np.int32), np.ones(20, np.float32)), spread)

def compiled_model(pieces):
    model = tiny_model(hidden_dropout_prob=0.5, attention_probs_dropout_prob=0.5)
    if pieces > 1:
        model.gradient_accumulation_enable(pieces)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model

def seeds(model, values):
    return [np.asarray(value).tolist() for variable, value in zip(model.non_trainable_variables, values)
            if variable.name == "seed_generator_state"]

def exchanges(pieces):
    # [whether within a loop, numbers] of each exchange
    model = compiled_model(pieces)
    step = jax.jit(model.train_step).lower(state_of(model), data_of(by_rows)).compile()
    found, entry = [], False
    for line in step.as_text().splitlines():
        if line.endswith("{"):
            entry = line.startswith("ENTRY")
        sent = re.search(rf"= (.*) ({COLLECTIVES})(-start)?\(", line)
        if sent:
            shapes = re.findall(r"[a-z]\w*\[([\d,]*)\]", sent[1])
            found.append([not entry, sum(int(np.prod([int(n) for n in s.split(",") if n])) for s in shapes)])
    return found

def answers(model, computed):
    _, _, others, logits = jax.jit(computed)(state_of(model), data_of(by_rows))
    return seeds(model, others), np.asarray(logits).tolist()

mesh = keras.distribution.DeviceMesh((4,), ("batch",), keras.distribution.list_devices())
by_rows = jax.sharding.NamedSharding(mesh.backend_mesh, jax.sharding.PartitionSpec("batch"))
distribution = keras.distribution.DataParallel(device_mesh=mesh, auto_shard_dataset=False)
with distribution.scope():
    told = {pieces: exchanges(pieces) for pieces in (1, 2, 3)}
    model = compiled_model(2)
    alone = functools.partial(jax_step._in_pieces, model, 2)
    before = seeds(model, [variable.value for variable in model.non_trainable_variables])
    shared = answers(model, jax_step._on_each_device(model, alone, distribution))
    weights = sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)
    print(json.dumps({"exchanges": told, "weights": weights, "before": before, "shared": shared,
                      "alone": answers(model, alone)}))
"""


@pytest.fixture(scope="module")
def told():
    environment = {
        "KERAS_BACKEND": "jax",
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4 --xla_backend_optimization_level=0",
    }
    command = [sys.executable, "-c", SCRIPT, os.path.dirname(beside)]
    result = subprocess.run(command, capture_output=True, text=True, env=os.environ | environment)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


@pytest.mark.parametrize("pieces", ["1", "2", "3"])
def test_gradients_are_exchanged_once_a_step_in_however_many_pieces(told, pieces):
    exchanges = told["exchanges"][pieces]
    assert not any(within_a_loop for within_a_loop, _ in exchanges)
    # Beside the gradients the loss and what its mean counts.
    assert sum(numbers for _, numbers in exchanges) == pytest.approx(told["weights"], rel=0.02)


def test_each_device_drops_by_itself(told):
    _, logits = told["shared"]
    by_device = [tuple(map(tuple, logits[first : first + 5])) for first in range(0, 20, 5)]
    assert len(set(by_device)) == 4  # of twenty times the same text


def test_seeds_go_on_as_on_one_device(told):
    assert told["shared"][0] == told["alone"][0] != told["before"]

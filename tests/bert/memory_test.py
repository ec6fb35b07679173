"""Memory of a step: the arithmetic, and that it holds against the peak of a process that trains."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tf_finetune import TFBertForSequenceClassification
from tf_finetune.bert.architecture import BertArchitecture
from tf_finetune.bert.memory import MIB, StepMemory, exchanged_bytes, num_weights, step_memory

SMALL = BertArchitecture(
    vocab_size=50, hidden_size=64, num_hidden_layers=3, num_attention_heads=4, intermediate_size=128
)
# The shape of MiniLM with 6 layers, and a few wide ones with a small table.
MINI = {"vocab_size": 30522, "hidden_size": 384, "num_hidden_layers": 6, "intermediate_size": 1536}
WIDE = {"vocab_size": 5000, "hidden_size": 768, "num_hidden_layers": 2, "intermediate_size": 3072}

STEPS = """
import json, sys
import keras, numpy as np
from tf_finetune import TFBertForSequenceClassification, create_optimizer
from tf_finetune.bert.architecture import BertArchitecture
from tf_finetune.bert.layers import LORA_TARGETS
from tf_finetune.native import compiled
sizes, rows, length, checkpointing, options = json.loads(sys.argv[1])

def status(field):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(field + ":"))

def train(rows, length, **sizes):
    model = TFBertForSequenceClassification(BertArchitecture(**sizes))
    model.build()
    if checkpointing:
        model.gradient_checkpointing_enable()
    if "accumulation" in options:
        model.gradient_accumulation_enable(2)
    if "lora" in options:
        model.enable_lora(8, targets=LORA_TARGETS)
    averages = 0.9 if "averages" in options else None
    optimizer, _ = create_optimizer(
        1e-4, 100, 10, weight_decay_rate=0.01, adam_global_clipnorm=1.0, ema_momentum=averages
    )
    model.compile(optimizer, model.default_loss(), jit_compile=False)
    model.fit(np.ones((2 * rows, length), "int32"), np.zeros(2 * rows, "int32"), batch_size=rows, verbose=0)
    return model

kept = train(2, 4, vocab_size=50, hidden_size=64, num_hidden_layers=1, num_attention_heads=4, intermediate_size=128)
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")
before = status("VmRSS")
model = train(rows, length, **sizes)
weights, trained = (
    sum(int(np.prod(variable.shape)) for variable in some) for some in (model.weights, model.trainable_weights)
)
print(json.dumps([status("VmHWM") - before - 4 * weights, trained, compiled.operations() is not None]))
"""


def measured(*case):
    """Bytes that a process rose by in two steps, numbers it trained, and whether it had compiled operations."""
    # The path, because this process may see the package in a place of its own.
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", STEPS, json.dumps(case)]
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


def modelled(architecture=SMALL, **changes):
    chosen = {"activation_bytes": 4, "gradient_checkpointing": False, "compiled": True} | changes
    return step_memory(architecture, **chosen)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is measured through Linux's /proc")
@pytest.mark.parametrize(
    ("sizes", "rows", "length", "checkpointing", "options"),
    [
        pytest.param(MINI, 8, 64, False, (), marks=pytest.mark.slow),
        (MINI, 4, 256, False, ()),
        (MINI, 16, 128, True, ()),
        (WIDE, 8, 128, False, ()),
        (MINI, 16, 128, False, ("accumulation", "averages")),
        (MINI, 16, 128, False, ("lora",)),
    ],
)
def test_a_step_takes_what_was_reckoned_and_no_more(sizes, rows, length, checkpointing, options):
    peak, trained, compiled = measured(sizes, rows, length, checkpointing, options)
    chosen = {"gradient_checkpointing": checkpointing, "compiled": compiled, "trained_weights": trained}
    chosen |= dict.fromkeys({"accumulation", "averages"} & set(options), True)
    memory = modelled(BertArchitecture(**sizes), **chosen)
    expected = memory.of_batch(rows // 2 if "accumulation" in options else rows, length)
    print(f"{rows} x {length}: {peak / MIB:.0f} MiB, reckoned {expected / MIB:.0f}")
    assert peak < expected < 1.4 * peak


def test_the_weights_are_those_of_the_model():
    model = TFBertForSequenceClassification(SMALL)
    model.build()
    assert num_weights(SMALL) == sum(variable.value.shape.num_elements() for variable in model.trainable_weights)


def test_devices_exchange_their_gradients_twice_round_the_ring():
    assert [exchanged_bytes(1000, replicas) for replicas in (1, 2, 4, 8)] == [0, 4000, 6000, 7000]


def test_several_devices_have_the_sums_beside_their_own_gradients():
    options = {"activation_bytes": 4, "gradient_checkpointing": False, "compiled": True}
    one, several = (step_memory(SMALL, replicas=replicas, **options) for replicas in (1, 8))
    assert several.fixed - one.fixed == 4 * num_weights(SMALL)


def test_a_batch_is_what_is_fixed_its_tokens_and_their_pairs():
    memory = StepMemory(fixed=1000, per_token=10, per_pair=2)
    assert memory.of_batch(3, 5) == 1000 + 15 * 10 + 3 * 25 * 2


@pytest.mark.parametrize("available", [1000, 1019, 1020, 5000, 123_456])
def test_the_most_tokens_fit_and_one_more_would_not(available):
    memory = StepMemory(fixed=1000, per_token=10, per_pair=2)
    tokens = memory.most_tokens(available, 5)
    assert memory.fixed + tokens * 20 <= available < memory.fixed + (tokens + 1) * 20


def test_nothing_fits_where_the_fixed_part_does_not():
    assert StepMemory(fixed=1000, per_token=10, per_pair=2).most_tokens(500, 5) == 0


@pytest.mark.parametrize("compiled", [False, True])
def test_what_saves_memory_is_known_to_save_it(compiled):
    whole = modelled(compiled=compiled)
    for saving in ({"activation_bytes": 2}, {"gradient_checkpointing": True}):
        saved = modelled(compiled=compiled, **saving)
        assert saved.per_token < whole.per_token
    # The last of the blocks keeps no pairs: with checkpointing two of them are at work, so that it takes four to save.
    deep = dataclasses.replace(SMALL, num_hidden_layers=4)
    for saving in ({"activation_bytes": 2}, {"gradient_checkpointing": True}):
        whole, saved = modelled(deep, compiled=compiled), modelled(deep, compiled=compiled, **saving)
        assert saved.per_pair < whole.per_pair or saved.per_pair == whole.per_pair == 0
    assert modelled(compiled=True).per_token < modelled(compiled=False).per_token
    assert modelled(compiled=True).per_pair == 0  # scores are never stored


def test_another_activation_keeps_more():
    other = BertArchitecture(**{**MINI, "hidden_act": "gelu_new"})
    assert modelled(other).per_token > modelled(BertArchitecture(**MINI)).per_token

"""Trains on logical CPU devices, for tests/mirrored_test.py: python mirrored_training.py FOLDER [all].

FOLDER holds films.csv and checkpoint/. What one device and several came to is written to FOLDER/found.json; with "all"
every case on 1, 2 and 8 devices, else few of them: a graph has a part for each device, and eight take long to make.
"""

import contextlib
import dataclasses
import json
import logging
import sys
from pathlib import Path
from unittest import mock

import keras
import numpy as np
import tensorflow as tf
from films import three_epochs

from tf_finetune import TFBertForSequenceClassification, TFBertModel, create_optimizer, tf_strategies
from tf_finetune.bert.architecture import BertArchitecture
from tf_finetune.config import Strategy
from tf_finetune.data.order import PADDING, evaluation_order, training_order
from tf_finetune.data.pipeline import batches
from tf_finetune.data.tokenized import TokenizedExamples
from tf_finetune.runtime import precision_policy
from tf_finetune.training import state_arrays
from tf_finetune.training.optimizer import layer_decay_factors

SIZES = {"vocab_size": 60, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
EXAMPLES, BUDGET, BAD = 41, 150, 17
# The first has gradients clipped at nearly every step, which would hide a wrong scale of them, and the others none.
CASES = {
    "plain": {"clipnorm": 0.3, "ema_momentum": 0.9},
    "accumulated": {"pieces": 3},
    "rounded": {"pieces": 3, "policy": "mixed_bfloat16"},
}
# (case, devices); 0 stands for training without a strategy.
FEW = [(case, replicas) for case in CASES for replicas in (0, 2)] + [("plain", 1), ("accumulated", 8)]
ALL = [(case, replicas) for case in CASES for replicas in (0, 1, 2, 8)]


class StepLosses(keras.callbacks.Callback):
    """Loss and accuracy of each step by itself."""

    def on_train_begin(self, logs=None):
        self.seen = []

    def on_train_batch_begin(self, batch, logs=None):
        self.model.reset_metrics()

    def on_train_batch_end(self, batch, logs=None):
        self.seen.append([float(logs["loss"]), float(logs["accuracy"])])


def examples():
    """Texts of many lengths, one with a weight that makes its step not finite."""
    random = np.random.default_rng(0)
    token_ids = [random.integers(5, 60, size).tolist() for size in random.integers(3, 30, EXAMPLES)]
    weights = random.uniform(0.5, 2, EXAMPLES)
    weights[BAD] = np.inf
    return TokenizedExamples.from_lists(token_ids, random.integers(0, 3, EXAMPLES).tolist(), weights=weights)


def compiled_model(*, pieces=1, clipnorm=None, ema_momentum=None, eager=False):
    model = TFBertForSequenceClassification(BertArchitecture(**SIZES | NO_DROPOUT, id2label=("a", "b", "c")))
    model.build()
    random = np.random.default_rng(1)
    for variable in model.trainable_variables:
        variable.assign(random.normal(scale=0.3, size=variable.shape))
    model.gradient_accumulation_enable(pieces)
    optimizer, _ = create_optimizer(
        1e-3, 100, 0, weight_decay_rate=0.1, adam_global_clipnorm=clipnorm, ema_momentum=ema_momentum,
        learning_rate_factors=layer_decay_factors(0.5, 1), skip_nonfinite_steps=True, schedule="constant",
    )  # fmt: skip
    accuracy = keras.metrics.SparseCategoricalAccuracy("accuracy")
    model.compile(optimizer, model.default_loss(), weighted_metrics=[accuracy], jit_compile=False, run_eagerly=eager)
    return model


def names_of(replicas):
    return tuple(f"CPU:{number}" for number in range(replicas))


def copies_differ(model):
    """The variables of which the devices have other values, whatever counts on each device by itself aside."""
    return [
        variable.path
        for variable in (*model.variables, *model.optimizer.variables)
        if any((copy.numpy() != variable.numpy()).any() for copy in getattr(variable.value, "values", ()))
    ]


def trained(data, replicas, *, policy="float32", **options):
    """What training and answering came to on so many devices."""
    scope = tf_strategies.mirrored(names_of(replicas)) if replicas else contextlib.nullcontext()
    multiple = max(1, replicas)
    with scope, precision_policy(policy):
        model, losses = compiled_model(**options), StepLosses()
        order = training_order(
            data.lengths, batch_size=1, batch_tokens=BUDGET, seed=0, epoch=0, rows_multiple_of=multiple
        )
        model.fit(batches(data, order), shuffle=False, verbose=0, callbacks=[losses])
        found = {"losses": losses.seen, "padding_rows": int((order.examples == PADDING).sum())}
        if replicas != 8:
            order = evaluation_order(data.lengths, batch_size=16, rows_multiple_of=multiple)
            answered = model.predict(batches(data, order), verbose=0)
            found["logits"] = answered[order.examples != PADDING].tolist()
        arrays = {variable.path: variable.numpy() for variable in model.trainable_variables}
        arrays |= state_arrays.arrays_of(model)
        found["arrays"] = {name: array.tolist() for name, array in arrays.items()}
        return found | {"copies_differ": copies_differ(model)}


def recipe(folder):
    """Two epochs with dropout and factors of LoRA on two devices, a budget of tokens and checkpoints on the way."""
    config = three_epochs(folder / "films.csv", folder / "checkpoint")
    config.train.epochs, config.train.batch_tokens, config.train.checkpoint_every_steps = 2, 400, 5
    config.model.lora_rank, config.train.accumulation_steps, config.optimizer.ema_momentum = 2, 2, 0.8
    config.runtime.strategy = Strategy.MIRRORED
    return config


def make_small(checkpoint):
    """Leaves one block of the checkpoint's model, with new weights."""
    model = TFBertModel(dataclasses.replace(BertArchitecture.from_folder(checkpoint), num_hidden_layers=1))
    model.build()
    model.save_pretrained(checkpoint)


def resumed(folder):
    """Trains once as it is and once killed on the way, on two devices."""
    import faults

    from tf_finetune.commands.train import train

    with mock.patch.object(tf_strategies, "for_mirrored", return_value=names_of(2)):
        train(recipe(folder), folder / "reference")
        with contextlib.suppress(faults.KilledError), contextlib.ExitStack() as patched:
            faults.at(
                "step", 7, faults.killed,
                set_attribute=lambda *what: patched.enter_context(mock.patch.object(*what)),
            )  # fmt: skip
            train(recipe(folder), folder / "killed")
            print("not killed")
        train(recipe(folder), folder / "killed")


def main(folder, cases):
    logging.getLogger("tensorflow").setLevel(logging.ERROR)  # it calls a second model in one process a mistake
    [cpu] = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 8)
    data, found = examples(), {}
    for case, replicas in cases:
        eager = replicas == 8 and cases is FEW
        found.setdefault(case, {})[replicas] = trained(data, replicas, eager=eager, **CASES[case])
    (folder / "found.json").write_text(json.dumps({"cases": found, "mirrored": tf_strategies.for_mirrored()}))
    make_small(folder / "checkpoint")
    resumed(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]), ALL if sys.argv[2:] == ["all"] else FEW)

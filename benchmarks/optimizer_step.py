"""One AdamW update of the demo model's 22.7M weights: ours against Keras's own, interleaved in one process.

python benchmarks/optimizer_step.py [ROUNDS]

Gradients are random, with the three embedding tables' sparse, as a batch of 32 texts of 27 tokens makes them.
Both optimizers clip by the global norm and decay the same weights. Prints the median of each and of the ratio.
"""

import os
import statistics
import sys
import time

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras  # noqa: E402
import tensorflow as tf  # noqa: E402

from tf_finetune import TFBertForSequenceClassification, create_optimizer  # noqa: E402
from tf_finetune.bert.architecture import BertArchitecture  # noqa: E402

MINILM = BertArchitecture(hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536)
TOKENS = 32 * 27
STEPS = 10  # a round: enough that one step's jitter does not show


def gradients_of(model: keras.Model) -> list:
    """A gradient for each weight, those of embedding tables as a tape returns them."""
    return [
        tf.IndexedSlices(
            tf.random.normal((TOKENS, v.shape[1]), stddev=1e-3),
            tf.random.uniform((TOKENS,), maxval=v.shape[0], dtype=tf.int32),
            tf.constant(v.shape),
        )
        if v.path.endswith("/embeddings")
        else tf.random.normal(v.shape, stddev=1e-3)
        for v in model.trainable_variables
    ]


def updater(optimizer):
    """A compiled function of one update of a model of its own."""
    model = TFBertForSequenceClassification(MINILM)
    model.build()
    optimizer.build(model.trainable_variables)
    gradients = gradients_of(model)

    @tf.function
    def update():
        optimizer.apply(gradients, model.trainable_variables)

    return update


def seconds(update) -> float:
    began = time.perf_counter()
    for _ in range(STEPS):
        update()
    return (time.perf_counter() - began) / STEPS


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 9
    ours, _ = create_optimizer(1e-4, 10_000, 1_000, weight_decay_rate=0.01, adam_global_clipnorm=1.0)
    theirs = keras.optimizers.AdamW(1e-4, weight_decay=0.01, epsilon=1e-8, global_clipnorm=1.0)
    theirs.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    updates = {"tf_finetune": updater(ours), "keras": updater(theirs)}
    for update in updates.values():
        update()  # traces
    times = {name: [] for name in updates}
    for _ in range(rounds):
        for name, update in updates.items():
            times[name].append(seconds(update))
    ratios = [mine / keras_own for mine, keras_own in zip(*times.values(), strict=True)]
    for name, values in times.items():
        print(f"{name:<12} median {1000 * statistics.median(values):.1f} ms an update")
    print(f"ratio        median {statistics.median(ratios):.2f} (from {min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()

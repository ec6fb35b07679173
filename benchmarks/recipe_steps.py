"""What each part of a recipe costs: the time of a training step with it, as a ratio to the plain step.

python benchmarks/recipe_steps.py [ROUNDS]

The packaged MiniLM on batches of 32 texts of 27 tokens, set up by the command line's own code; all in one process, a
few steps of each in turn. Prints the median over the rounds of each ratio, and what it trains.
"""

import os
import statistics
import sys
import time

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np  # noqa: E402
from recipes import CONFIG, settings_of  # noqa: E402

from tf_finetune import devices, pretrained, runtime, settings  # noqa: E402
from tf_finetune.commands import model_setup  # noqa: E402
from tf_finetune.config import ExperimentConfig  # noqa: E402
from tf_finetune.data.sources import Splits  # noqa: E402
from tf_finetune.native import compiled  # noqa: E402

PARTS = (
    "plain",
    "layer_decay",
    "ema",
    "smoothing",
    "dropout_0",
    "freeze_embeddings",
    "freeze_3",
    "lora_8",
    "accumulation_4",
    "checkpointing",
)
ALSO = {
    "accumulation_4": {"train.accumulation_steps": 4},
    "checkpointing": {"train.gradient_checkpointing": True},
}
TEXTS, LENGTH, STEPS = 32, 27, 4


def config_of(part: str) -> ExperimentConfig:
    config, values = settings.load(CONFIG), ALSO[part] if part in ALSO else settings_of(part)
    as_typed = dict(settings.fields(config))
    return settings.with_values(config, {name: type(as_typed[name])(value) for name, value in values.items()})


def stepper(config: ExperimentConfig):
    """A function of one training step of a model of its own, and the numbers that it moves."""
    splits = Splits({}, ("negative", "positive"))
    classifier = model_setup.build_classifier(config, splits, pretrained.local_checkpoint(config.model.checkpoint))
    model_setup.choose_weights(classifier.model, config, goes_on=False)
    labels = np.arange(TEXTS) % 2
    model_setup.compile_classifier(classifier, labels, config, num_train_steps=10_000)
    ids = np.random.default_rng(0).integers(1000, 20_000, (TEXTS, LENGTH), dtype=np.int32)
    inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    trained = sum(int(np.prod(variable.shape)) for variable in classifier.model.trainable_variables)
    return lambda: classifier.model.train_on_batch(inputs, labels), trained


def seconds(step) -> float:
    began = time.perf_counter()
    for _ in range(STEPS):
        step()
    return (time.perf_counter() - began) / STEPS


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    compiled.use(True)
    policy = devices.training_policy(settings.load(CONFIG).runtime.precision)
    with runtime.precision_policy(policy):
        steps = {part: stepper(config_of(part)) for part in PARTS}
    print(f"{policy}, operations {compiled.state()}", file=sys.stderr)
    for step, _ in steps.values():
        seconds(step)
    measured = [{part: seconds(step) for part, (step, _) in steps.items()} for _ in range(rounds)]
    print("| part | step, ms | to plain | trained, millions |")
    print("|---|---|---|---|")
    for part, (_, trained) in steps.items():
        own = statistics.median(one[part] for one in measured)
        ratio = statistics.median(one[part] / one["plain"] for one in measured)
        print(f"| {part} | {1000 * own:.0f} | {ratio:.2f} | {trained / 1e6:.2f} |")


if __name__ == "__main__":
    main()

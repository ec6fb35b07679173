"""What every peer's script shares: the job it reads, the clock it keeps and the line it prints. Needs numpy alone.

    ENVIRONMENT/bin/python benchmarks/peers/NAME.py JOB.json

A job is one process's work, and the line is its result. There are two kinds:

- speed: train over batches drawn from the whole epoch until `seconds` have gone by, then evaluate some texts;
- accuracy: train whole epochs, and say after each how the validation texts are answered.
"""

import dataclasses
import json
import resource
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

GOLDEN_RATIO = (5**0.5 - 1) / 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """What one process shall do.

    Attributes:
        measure: "speed" or "accuracy".
        train: JSON lines of `{"text", "label"}`, label 0 or 1.
        validation: the same.
        checkpoint: a folder in the Hugging Face layout, with classifier, tokenizer and a tf_model.h5 beside.
        max_length: tokens a text at most.
        batch_size: texts a training batch; evaluation takes as many or more, as a peer likes.
        precision: "float32" or "bfloat16" (mixed: weights are float32).
        learning_rate: the peak, after a linear warmup over a tenth of the steps; then linear to 0.
        epochs: what the learning rate is scheduled for, and how far an accuracy job trains.
        seed: of dropout and order.
        spawned: when the process was started, by `time.time()`.
        batch_tokens: takes the place of batch_size for a peer that can: tokens a batch at most, padding included.
        unmeasured_steps: of a speed job, before the measured ones; at least 1.
        seconds: of measured steps of a speed job.
        evaluation_examples: validation texts that a speed job evaluates.
        limit_s: seconds after which an accuracy job gives up.
    """

    measure: str
    train: str
    validation: str
    checkpoint: str
    max_length: int
    batch_size: int
    precision: str
    learning_rate: float
    epochs: int
    seed: int
    spawned: float
    batch_tokens: int | None = None
    unmeasured_steps: int = 2
    seconds: float = 20.0
    evaluation_examples: int = 256
    limit_s: float = 1200.0

    @property
    def for_speed(self) -> bool:
        return self.measure == "speed"


def read_job() -> Job:
    """The job that the command line names."""
    return Job(**json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))


def read_texts(path: str) -> tuple[list[str], list[int]]:
    """Texts and labels of JSON lines."""
    with open(path, encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return [row["text"] for row in rows], [row["label"] for row in rows]


def classifier_weights(checkpoint: str) -> tuple[np.ndarray, np.ndarray]:
    """Kernel (hidden, 2) and bias (2,) of the checkpoint's classifier, for libraries that would begin with another."""
    from safetensors.numpy import load_file

    tensors = load_file(Path(checkpoint) / "model.safetensors")
    return tensors["classifier.weight"].T, tensors["classifier.bias"]


def evenly(texts: Sequence[str], number: int) -> list[str]:
    """So many of the texts, evenly from the shortest to the longest."""
    by_length = sorted(texts, key=len)
    number = min(number, len(texts))
    return [by_length[(2 * i + 1) * len(texts) // (2 * number)] for i in range(number)]


def spread_order(widths: Sequence[int]) -> np.ndarray:
    """An order of the batches any beginning of which has its share of short and of long ones: int64 [batches].

    Batch i stands at i golden ratios (modulo 1) in the epoch sorted by width: a low-discrepancy sequence. A few
    batches drawn by chance would say little of an epoch that is sorted by length.
    """
    places = (0.5 + GOLDEN_RATIO * np.arange(len(widths))) % 1
    return np.argsort(widths, kind="stable")[np.argsort(np.argsort(places))]


class StepClock:
    """Counts the finished steps of a training and says when it is enough.

    Args:
        job: what is measured.
        rows: texts in each batch of one epoch, in the order of training.
        widths: tokens each of these is padded to.
    """

    def __init__(self, job: Job, rows: Sequence[int], widths: Sequence[int]):
        self.job = job
        self.rows, self.tokens = np.asarray(rows), np.asarray(rows) * np.asarray(widths)
        self.steps, self.first_step_s = 0, 0.0
        self.began = self.ended = 0.0

    def step_done(self) -> bool:
        """To be called whenever a step has finished; whether training shall stop."""
        now = time.time()
        self.steps += 1
        if self.steps == 1:
            self.first_step_s = now - self.job.spawned
        if self.steps == self.job.unmeasured_steps:
            self.began = now
        self.ended = now
        if self.job.for_speed:
            return self.steps > self.job.unmeasured_steps and now - self.began >= self.job.seconds
        return self.out_of_time

    @property
    def out_of_time(self) -> bool:
        return time.time() - self.job.spawned > self.job.limit_s

    def speed(self) -> dict[str, Any]:
        """Of the measured steps.

        The rate of texts is that of computed tokens, padding included, over the computed tokens a text of the whole
        epoch: so it does not depend on which batches the time was enough for.
        """
        measured = slice(self.job.unmeasured_steps, self.steps)
        seconds = self.ended - self.began
        computed = int(self.tokens[measured].sum())
        return {
            "measured_steps": len(self.rows[measured]),
            "measured_seconds": seconds,
            "measured_examples": int(self.rows[measured].sum()),
            "step_ms": 1000 * seconds / max(1, len(self.rows[measured])),
            "examples_per_second": computed / seconds * self.rows.sum() / self.tokens.sum() if seconds else None,
        }


def stopper(callback_class: type, clock: StepClock):
    """A callback of either Keras that tells the clock of every step, and stops the training when it says so."""

    class Stopper(callback_class):
        def on_train_batch_end(self, batch, logs=None):
            float(logs["loss"])  # waits for the step to finish
            self.model.stop_training = clock.step_done()

    return Stopper()


def peak_bytes() -> int:
    """The most memory this process has held."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def per_second(work: Callable[[], Any], number: int) -> float:
    """How many of `number` pieces of work are done in a second."""
    began = time.perf_counter()
    work()
    return number / (time.perf_counter() - began)


def per_second_when_warm(work: Callable[[], Any], number: int) -> float:
    """The same, of the second time: the first one traces, and finds its kernels."""
    work()
    return per_second(work, number)


def scores(logits: np.ndarray, labels: Sequence[int]) -> dict[str, float]:
    """Mean cross-entropy and accuracy of logits (texts, 2)."""
    logits, labels = np.asarray(logits, np.float64), np.asarray(labels)
    shifted = logits - logits.max(axis=1, keepdims=True)
    chosen = np.take_along_axis(shifted, labels[:, np.newaxis], axis=1)[:, 0]
    loss = (np.log(np.exp(shifted).sum(axis=1)) - chosen).mean()
    return {"loss": float(loss), "accuracy": float((logits.argmax(axis=1) == labels).mean())}


class Validations:
    """How the validation texts were answered after each epoch of an accuracy job."""

    def __init__(self, job: Job):
        self.job, self.each = job, []

    def add(self, logits: np.ndarray, labels: Sequence[int]) -> None:
        self.each.append({"seconds": time.time() - self.job.spawned, **scores(logits, labels)})

    def result(self) -> dict[str, Any]:
        last = self.each[-1] if self.each else {"loss": None, "accuracy": None}
        return {
            "validation_loss": last["loss"],
            "validation_accuracy": last["accuracy"],
            "validations": self.each,
        }


def print_result(result: dict[str, Any]) -> None:
    print(json.dumps(result), flush=True)

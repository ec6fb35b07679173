"""What a run says while it trains: a line of progress and a line of metrics.jsonl every few steps."""

import json
import math
import time
from collections.abc import Callable
from pathlib import Path

import keras

from tf_finetune.errors import RunError
from tf_finetune.training.cost import CostMeter, EpochWork
from tf_finetune.training.optimizer import WarmupLinearDecay


class MetricsLog:
    """What is measured while training, for reading and for plotting.

    Args:
        path: metrics.jsonl, one object a line; all that depends on the clock sits under its `timing` key.
        tensorboard: the folder of the same numbers as TensorBoard reads them, a folder a split.
    """

    def __init__(self, path: Path, tensorboard: Path):
        self.path, self.tensorboard = path, tensorboard
        self.writers = {}

    def write(self, *, split: str, epoch: int, step: int, timing: dict[str, float] | None = None, **numbers: float):
        record = {"split": split, "epoch": epoch, "step": step, **numbers} | ({"timing": timing} if timing else {})
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record, allow_nan=False) + "\n")
        self._write_events(split, step, numbers | (timing or {}))

    def _write_events(self, split: str, step: int, numbers: dict[str, float]) -> None:
        import tensorflow as tf

        if split not in self.writers:
            self.writers[split] = tf.summary.create_file_writer(str(self.tensorboard / split))
        # Not tf.summary.scalar, which wants TensorBoard itself installed: reading needs it, writing does not.
        summary = tf.compat.v1.Summary()
        for name, value in numbers.items():
            summary.value.add(tag=name, simple_value=value)
        with self.writers[split].as_default():
            tf.summary.experimental.write_raw_pb(summary.SerializeToString(), step=step)
        self.writers[split].flush()


class Progress(keras.callbacks.Callback):
    """Prints and records loss, accuracy (where the model is compiled with it), learning rate and cost of the steps.

    Loss and accuracy are those of the epoch so far, the cost is that of the steps since the last line.

    Raises RunError at the first step whose loss is not finite.

    Args:
        log: where records go.
        schedule: learning rate by step, and the number of steps of the run.
        meter: of the run.
        work: of this epoch's batches.
        waited: seconds that this epoch's steps have waited for their batches so far.
        first_step: optimizer steps done before this epoch.
        every: steps between two lines.
    """

    def __init__(
        self,
        log: MetricsLog,
        *,
        schedule: WarmupLinearDecay,
        meter: CostMeter,
        work: EpochWork,
        waited: Callable[[], float],
        first_step: int,
        every: int,
    ):
        super().__init__()
        self.log, self.schedule, self.meter, self.work, self.waited = log, schedule, meter, work, waited
        self.first_step, self.every = first_step, every
        self.batch = 0  # the one at work

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch
        self.began = time.perf_counter()
        self.meter.begin_epoch(epoch, self.work, self.waited)

    def on_train_batch_begin(self, batch, logs=None):
        self.batch = batch

    def on_train_batch_end(self, batch, logs=None):
        step = self.first_step + batch + 1
        if not math.isfinite(logs["loss"]):
            raise RunError(f"the loss is {logs['loss']} at step {step}: a lower learning rate may help")
        self.meter.step_done(batch)
        if step % self.every == 0 or batch + 1 == len(self.work.examples):
            self._report(batch, step, logs)

    def _report(self, batch: int, step: int, logs: dict[str, float]) -> None:
        cost = self.meter.report(batch)
        learning_rate = float(self.schedule(step - 1))
        numbers = {name: float(value) for name, value in logs.items()}
        accuracy = f"  accuracy {numbers['accuracy']:.4f}" if "accuracy" in numbers else ""
        print(
            f"epoch {self.epoch + 1}  step {step}/{self.schedule.num_train_steps}  loss {numbers['loss']:.4f}{accuracy}"
            f"  learning_rate {learning_rate:.2e}  {cost.timing['examples_per_second']:.0f} examples/s",
            flush=True,
        )
        if cost.line():
            print(f"  {cost.line()}", flush=True)
        self.log.write(
            split="train",
            epoch=self.epoch,
            step=step,
            **numbers,
            learning_rate=learning_rate,
            padding_share=cost.padding_share,
            timing={"epoch_seconds": time.perf_counter() - self.began} | cost.timing,
        )

"""What a run says while it trains: a line of progress and a line of metrics.jsonl every few steps."""

import contextlib
import json
import math
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import keras
import numpy as np

from tf_finetune.errors import RunError
from tf_finetune.training import state_arrays
from tf_finetune.training.cost import CostMeter, EpochWork
from tf_finetune.training.optimizer import WarmupSchedule

# Of a record: what is no number of TensorBoard's.
NO_NUMBERS = ("split", "epoch", "step", "timing")
# Of a message of TensorFlow's: `{{function_node ...}} FILE; No space left on device\n\tFailed ... [Op:...] ...`
AROUND_REASON = r"(?s)^\{\{.*?\}\} |(\n| \[Op:).*"


class MetricsLog:
    """What is measured while training, for reading and for plotting.

    Args:
        path: metrics.jsonl, one object a line; all that depends on the clock sits under its `timing` key.
        tensorboard: the folder of the same numbers as TensorBoard reads them, a folder a split.
    """

    def __init__(self, path: Path, tensorboard: Path):
        self.path, self.tensorboard = path, tensorboard
        self.writers = {}

    def cut(self, size: int, *, warn: Callable[[str], None]) -> None:
        """Takes back what was written after the first `size` bytes; TensorBoard's files are made anew.

        Args:
            size: what `size` gave.
            warn: told if there is less, or a line that no run has written.
        """
        with self._written():
            self.path.touch()
            content = self.path.read_bytes()[:size]
            whole = content[: content.rfind(b"\n") + 1]
            if len(whole) < size:
                warn(f"{self.path} is shorter than the run had made it: what it lacks is lost")
            os.truncate(self.path, len(whole))
            shutil.rmtree(self.tensorboard, ignore_errors=True)
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                record = json.loads(line)
                numbers = {name: record[name] for name in record if name not in NO_NUMBERS} | record.get("timing", {})
                numbers = {name: float(value) for name, value in numbers.items()}
                split, step = str(record["split"]), int(record["step"])
            except (ValueError, KeyError, TypeError, AttributeError):
                warn(f"{self.path} line {number} is damaged: it stays as it is, and is missing in TensorBoard")
                continue
            self._write_events(split, step, numbers)

    def size(self) -> int:
        """Bytes of metrics.jsonl, all of them on the disk."""
        with self._written(), self.path.open("a", encoding="utf-8") as file:
            os.fsync(file.fileno())
            return os.fstat(file.fileno()).st_size

    def write(self, *, split: str, epoch: int, step: int, timing: dict[str, float] | None = None, **numbers: float):
        record = {"split": split, "epoch": epoch, "step": step, **numbers} | ({"timing": timing} if timing else {})
        with self._written(), self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record, allow_nan=False) + "\n")
        self._write_events(split, step, numbers | (timing or {}))

    @contextlib.contextmanager
    def _written(self) -> Iterator[None]:
        """Says what cannot be written: a full disk's error names no file, and TensorFlow's sounds like its memory."""
        import tensorflow as tf

        try:
            yield
        except (OSError, tf.errors.OpError) as error:
            reason = error.strerror if isinstance(error, OSError) else re.sub(AROUND_REASON, "", error.message)
            raise RunError(f"the metrics cannot be written, in {self.path.parent}: {reason}") from error

    def _write_events(self, split: str, step: int, numbers: dict[str, float]) -> None:
        import tensorflow as tf

        # Not tf.summary.scalar, which wants TensorBoard itself installed: reading needs it, writing does not.
        summary = tf.compat.v1.Summary()
        for name, value in numbers.items():
            summary.value.add(tag=name, simple_value=value)
        with self._written():
            if split not in self.writers:
                self.writers[split] = tf.summary.create_file_writer(str(self.tensorboard / split))
            with self.writers[split].as_default():
                tf.summary.experimental.write_raw_pb(summary.SerializeToString(), step=step)
            self.writers[split].flush()


class NoLog:
    """In the place of MetricsLog, in a process that does not write."""

    def size(self) -> int:
        return 0

    def write(self, **record) -> None:
        pass


class FiniteMetrics(keras.callbacks.Callback):
    """Keeps steps whose loss is not finite out of the metrics of the epoch, and stops the run when there are too many.

    The optimizer has changed nothing in such a step, nor in one whose gradient is not finite (skip_nonfinite_steps).

    Args:
        first_step: optimizer steps done before.
        most: how many may come in a row.
        way_on: the words for what is kept and how to go on, for the error.

    Attributes:
        numbers: the metrics of the epoch so far.
        skipped_steps: of the whole run.

    Raises:
        RunError: more than `most` came in a row.
    """

    def __init__(self, *, first_step: int, most: int, way_on: str):
        super().__init__()
        self.step, self.most, self.way_on = first_step, most, way_on
        self.numbers: dict[str, float] = {}
        self.skipped_steps = 0

    def on_epoch_begin(self, epoch, logs=None):
        self.kept = state_arrays.metrics_of(self.model)
        if any(array.any() for array in self.kept.values()):  # else no step of the epoch so far had a finite loss
            self.numbers = {name: float(value) for name, value in self.model.get_metrics_result().items()}

    def on_train_batch_end(self, batch, logs=None):
        self.step += 1
        if math.isfinite(logs["loss"]):
            self.kept = state_arrays.metrics_of(self.model)
            self.numbers = {name: float(value) for name, value in logs.items()}
        else:
            state_arrays.restore_metrics(self.model, self.kept)
        optimizer = self.model.optimizer
        self.skipped_steps = int(optimizer.skipped_steps.numpy())
        self._check(int(optimizer.skipped_in_a_row.numpy()))

    def _check(self, in_a_row: int) -> None:
        if in_a_row > self.most:
            raise RunError(
                f"the loss or its gradient was not finite in {in_a_row} steps in a row, the last of them step "
                f"{self.step}, train.max_skipped_steps={self.most} may be skipped; {self.way_on}"
            )


class Pause(keras.callbacks.Callback):
    """Ends a `fit` after the step at which `is_due(steps done in it)` first holds."""

    def __init__(self, is_due: Callable[[int], bool]):
        super().__init__()
        self.is_due = is_due

    def on_train_batch_end(self, batch, logs=None):
        if self.is_due(batch + 1):
            self.model.stop_training = True


class AfterPrediction(keras.callbacks.Callback):
    """Calls a function after each batch of a `predict`."""

    def __init__(self, act: Callable[[], None]):
        super().__init__()
        self.act = act

    def on_predict_batch_end(self, batch, logs=None):
        self.act()


class RestoreMetrics(keras.callbacks.Callback):
    """Lets a `fit` go on with the metrics of an epoch, which it sets back as it begins."""

    def __init__(self, metrics: Mapping[str, np.ndarray]):
        super().__init__()
        self.metrics = metrics

    def on_epoch_begin(self, epoch, logs=None):
        if self.metrics:
            state_arrays.restore_metrics(self.model, self.metrics)


class Progress(keras.callbacks.Callback):
    """Prints and records loss, accuracy (where the model is compiled with it), learning rate and cost of the steps.

    Loss and accuracy are those of the epoch so far, the cost is that of the steps since the last line.

    Args:
        log: where records go.
        metrics: called before this.
        schedule: learning rate by step, and the number of steps of the run.
        meter: of the run.
        work: of this epoch's batches.
        waited: seconds that the steps have waited for their batches so far; None if nobody knows.
        first_step: optimizer steps done before the epoch.
        first_batch: of the epoch, to begin with.
        every: steps between two lines.
    """

    def __init__(
        self,
        log: MetricsLog,
        *,
        metrics: FiniteMetrics,
        schedule: WarmupSchedule,
        meter: CostMeter,
        work: EpochWork,
        waited: Callable[[], float] | None,
        first_step: int,
        first_batch: int = 0,
        every: int,
    ):
        super().__init__()
        self.log, self.metrics, self.schedule, self.meter = log, metrics, schedule, meter
        self.work, self.waited = work, waited
        self.first_step, self.first_batch, self.every = first_step, first_batch, every
        self.batch = first_batch  # the one at work

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch
        self.began = time.perf_counter()
        since_last_line = (self.first_step + self.first_batch) % self.every
        reported = max(0, self.first_batch - since_last_line)
        self.meter.begin_epoch(epoch, self.work, self.waited, first=self.first_batch, reported=reported)

    def on_train_batch_begin(self, batch, logs=None):
        self.batch = self.first_batch + batch

    def on_train_batch_end(self, batch, logs=None):
        done = self.first_batch + batch + 1
        step = self.first_step + done
        self.meter.step_done(done - 1)
        if step % self.every == 0 or done == len(self.work.examples):
            self._report(done - 1, step)

    def _report(self, batch: int, step: int) -> None:
        numbers = self.metrics.numbers  # what is not computed yet is waited for, and counts into the cost
        cost = self.meter.report(batch)
        learning_rate = float(self.schedule(step - 1))
        found = "  ".join(f"{name} {numbers[name]:.4f}" for name in ("loss", "accuracy") if name in numbers)
        print(
            f"epoch {self.epoch + 1}  step {step}/{self.schedule.num_train_steps}  {found}"
            f"  learning_rate {learning_rate:.2e}  {cost.timing['examples_per_second']:.0f} examples/s",
            flush=True,
        )
        if cost.line():
            print(f"  {cost.line()}", flush=True)
        skipped = self.metrics.skipped_steps
        if skipped:
            print(f"  steps skipped so far, their loss or gradient not finite: {skipped}", flush=True)
        self.log.write(
            split="train",
            epoch=self.epoch,
            step=step,
            **numbers,
            learning_rate=learning_rate,
            padding_share=cost.padding_share,
            skipped_steps=skipped,
            timing={"epoch_seconds": time.perf_counter() - self.began} | cost.timing,
        )


class BatchLosses(keras.callbacks.Callback):
    """The loss of each batch by itself, through several `fit`s.

    Args:
        is_over: asked of the losses so far after each batch; it ends `fit`, as a loss that is not finite does.

    Attributes:
        seen: the losses, all finite.
        is_over: whether `fit` was ended.
    """

    def __init__(self, is_over: Callable[[list[float]], bool]):
        super().__init__()
        self.seen: list[float] = []
        self.is_over = False
        self._is_over = is_over

    def on_train_batch_begin(self, batch, logs=None):
        if keras.backend.backend() == "jax":
            self.model.jax_state_sync()  # else the step's metrics are not those of the model
        self.model.reset_metrics()  # Keras's loss is the mean since the epoch began

    def on_train_batch_end(self, batch, logs=None):
        if is_finite := math.isfinite(logs["loss"]):
            self.seen.append(float(logs["loss"]))
        if not is_finite or self._is_over(self.seen):
            self.is_over = self.model.stop_training = True

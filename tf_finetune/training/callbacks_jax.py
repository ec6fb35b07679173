"""What a run on JAX looks at while it trains: without waiting for the step at work."""

import math

from tf_finetune.training.callbacks import FiniteMetrics


class FiniteMetricsInStep(FiniteMetrics):
    """FiniteMetrics where the step itself keeps a loss that is not finite out of the metrics (`bert/jax_step.py`).

    What a step has to say is read when the next one is under way: reading waits for the step, and the device would
    have nothing to do meanwhile. So one step more is computed before the run is stopped.
    """

    def on_epoch_begin(self, epoch, logs=None):
        self._unread = None
        super().on_epoch_begin(epoch, logs)

    def on_train_batch_end(self, batch, logs=None):
        before, self._unread = self._unread, logs
        self._read(before)

    def on_epoch_end(self, epoch, logs=None):
        self._read_last()

    @property
    def numbers(self) -> dict[str, float]:
        """The metrics of the epoch so far; waits for the last step."""
        self._read_last()
        return self._numbers

    @numbers.setter
    def numbers(self, numbers: dict[str, float]) -> None:
        self._unread, self._numbers = None, numbers

    def _read_last(self) -> None:
        last, self._unread = self._unread, None
        self._read(last)

    def _read(self, logs) -> None:
        if logs is None:
            return
        self.step += 1
        found = {name: float(value) for name, value in logs.items()}
        self.skipped_steps, in_a_row = int(found.pop("skipped_steps")), int(found.pop("skipped_in_a_row"))
        if math.isfinite(found["loss"]):
            self._numbers = found
        self._check(in_a_row)

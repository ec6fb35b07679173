"""What the steps of a run cost: speeds, padding, waits, and the time that is left."""

import dataclasses
import time
from collections.abc import Callable

import numpy as np


@dataclasses.dataclass(frozen=True)
class EpochWork:
    """What each batch of an epoch holds, as int64 arrays [number of batches].

    Attributes:
        examples: rows that are examples.
        tokens: of the texts, padding left out.
        computed_tokens: padding included.
        flops: operations of the step in matrix products.
    """

    examples: np.ndarray
    tokens: np.ndarray
    computed_tokens: np.ndarray
    flops: np.ndarray


@dataclasses.dataclass(frozen=True)
class Cost:
    """What the steps since the last report cost.

    Attributes:
        padding_share: of the computed tokens.
        timing: all that depends on the clock; `examples_per_second` alone, as 0, where no step was measured.
    """

    padding_share: float
    timing: dict[str, float]

    def line(self) -> str:
        """In words; empty where no step was measured."""
        if "seconds_left" not in self.timing:
            return ""
        timing = self.timing
        waited = f"  {timing['input_wait_share']:.1%} waiting for input" if "input_wait_share" in timing else ""
        return (
            f"{timing['tokens_per_second']:.0f} tokens/s  {self.padding_share:.1%} padding"
            f"  {timing['matrix_rate_share']:.0%} of the matrix rate{waited}  {duration(timing['seconds_left'])} left"
        )


class CostMeter:
    """Measures the steps of a run, all its epochs together.

    The first step of the run is mostly tracing, and counts into no speed. What is left is counted in operations, at the
    speed of the whole run so far; an epoch that is to come is taken to be like this one, and all of them are to come,
    however early the run may stop.

    Args:
        epochs: of the run.
        matrix_rate: operations a second that this machine reaches in a matrix product.
        seconds_between: from the last step of an epoch to the next epoch, as far as is known: validation, mostly.
    """

    def __init__(self, *, epochs: int, matrix_rate: float, seconds_between: float = 0.0):
        self.epochs, self.matrix_rate, self.seconds_between = epochs, matrix_rate, seconds_between
        self.seconds, self.flops = 0.0, 0.0  # of all steps measured and reported
        self.is_traced = False

    def begin_epoch(
        self, epoch: int, work: EpochWork, waited: Callable[[], float] | None, *, first: int = 0, reported: int = 0
    ) -> None:
        """Begins an epoch, or goes on with it.

        Args:
            epoch: from 0.
            work: of all its batches.
            waited: how many seconds the steps have waited for their batches, from now on; None if nobody knows.
            first: the batch to begin with.
            reported: batches that earlier reports were about.
        """
        self.epoch, self.work, self.waited = epoch, work, waited
        self.reported = reported
        self._measure_from(first)

    def step_done(self, batch: int) -> None:
        """To be called after each step, with its number in the epoch."""
        if not self.is_traced:
            self.is_traced = True
            self._measure_from(batch + 1)

    def report(self, batch: int) -> Cost:
        """What the steps since the last report cost, up to this batch of the epoch."""
        stop = batch + 1
        all_of_them, measured = slice(self.reported, stop), slice(self.measured, stop)
        padding_share = 1 - float(self.work.tokens[all_of_them].sum() / self.work.computed_tokens[all_of_them].sum())
        timing = self._timing(measured) if self.measured < stop else {"examples_per_second": 0.0}
        self.reported = stop
        self._measure_from(stop)
        return Cost(padding_share=padding_share, timing=timing)

    def _measure_from(self, batch: int) -> None:
        self.measured, self.began = batch, time.perf_counter()
        self.waited_before = self.waited() if self.waited else 0.0

    def _timing(self, steps: slice) -> dict[str, float]:
        seconds = max(time.perf_counter() - self.began, 1e-9)
        flops = float(self.work.flops[steps].sum())
        self.seconds, self.flops = self.seconds + seconds, self.flops + flops
        waited = {}
        if self.waited:
            waited["input_wait_share"] = min(max((self.waited() - self.waited_before) / seconds, 0.0), 1.0)
        return {
            "examples_per_second": float(self.work.examples[steps].sum()) / seconds,
            "tokens_per_second": float(self.work.tokens[steps].sum()) / seconds,
            "matrix_rate": self.matrix_rate,
            "matrix_rate_share": flops / seconds / self.matrix_rate,
            **waited,
            "seconds_left": self._seconds_left(steps.stop),
        }

    def _seconds_left(self, next_batch: int) -> float:
        epochs_to_come = self.epochs - self.epoch - 1
        flops = float(self.work.flops[next_batch:].sum()) + epochs_to_come * float(self.work.flops.sum())
        return flops * self.seconds / self.flops + (epochs_to_come + 1) * self.seconds_between


def duration(seconds: float) -> str:
    """Such as `45 s`, `3 min 20 s` or `2 h 5 min`."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"

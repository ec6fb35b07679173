"""SIGTERM and Ctrl-C: training saves and leaves; another Ctrl-C leaves at once."""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator

from tf_finetune.errors import INTERRUPTED_STATUS, Interrupted

SIGNALS = (signal.SIGTERM, signal.SIGINT)
# Seconds within which another Ctrl-C is the same one, passed on by a process around this one.
ECHO = 0.3


class Stops:
    """Whether somebody asked the run to stop.

    Python runs a signal's handler between two of its own instructions, and a step of training is one instruction of
    seconds. So a thread reads the signals, too: it answers at once, and leaves at once when it is told to twice.

    Args:
        is_process: whether the process is the run's own, to be left at once by another Ctrl-C; else that raises
            Interrupted as soon as Python gets to it, as in a notebook.
    """

    def __init__(self, *, is_process: bool = False):
        self.asked_by: str | None = None
        self.is_process = is_process
        self._asked_at = 0.0
        self._is_deferred = False
        self._is_over = False
        self._way_on = ""

    @contextlib.contextmanager
    def watched(self, *, way_on: str = "the same command goes on") -> Iterator[None]:
        """Takes the signals over; in a thread that is not the main one it cannot, and leaves them as they are.

        Until `deferred`, a signal raises Interrupted wherever the run is. One that is ignored stays so.

        Args:
            way_on: the words for how the run is gone on with.
        """
        self._way_on = way_on
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        with contextlib.ExitStack() as undo:
            reader, writer = os.pipe()
            undo.callback(os.close, reader)
            os.set_blocking(writer, False)
            thread = threading.Thread(target=self._read, args=(reader,), daemon=True)
            thread.start()
            undo.callback(thread.join)
            undo.callback(os.close, writer)
            undo.callback(signal.set_wakeup_fd, signal.set_wakeup_fd(writer))
            for number in SIGNALS:
                before = signal.getsignal(number)
                if before is not signal.SIG_IGN:
                    undo.callback(signal.signal, number, before or signal.SIG_DFL)
                    signal.signal(number, self._on_signal)
            undo.callback(setattr, self, "_is_over", True)  # nothing shall break in on the undoing
            yield

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Inside, a signal is only taken down, for `check` to act on."""
        self.check("before the first step")
        self._is_deferred = True
        try:
            yield
        finally:
            self._is_deferred = False

    def check(self, where: str) -> None:
        """Raises Interrupted, with the words for where the run stands, if somebody asked for it."""
        if self.asked_by:
            raise Interrupted(f"interrupted by {self.asked_by} {where}; {self._way_on}")

    def _on_signal(self, number: int, frame) -> None:
        if self._is_over:
            return
        if not self.asked_by:
            self.asked_by, self._asked_at = signal.Signals(number).name, time.monotonic()
        elif number == signal.SIGINT and not self._is_echo():
            raise Interrupted(f"interrupted again, at once; {self._way_on} from the last checkpoint")
        if not self._is_deferred:
            self.check("outside of training, where there is nothing to save")

    def _is_echo(self) -> bool:
        return time.monotonic() - self._asked_at <= ECHO

    def _read(self, reader: int) -> None:
        first = None
        while number := os.read(reader, 1):
            if number[0] not in SIGNALS:
                continue
            now = time.monotonic()
            if first is None:
                first = now
                if self._is_deferred:
                    print("stopping after this step, to save; Ctrl-C leaves at once", file=sys.stderr, flush=True)
            elif number[0] == signal.SIGINT and self.is_process and now - first > ECHO:
                os._exit(INTERRUPTED_STATUS)

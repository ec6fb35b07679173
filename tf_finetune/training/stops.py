"""SIGTERM and Ctrl-C: training saves and leaves; another Ctrl-C leaves at once."""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator

from tf_finetune.errors import INTERRUPTED_STATUS, Interrupted

SIGNALS = (signal.SIGTERM, signal.SIGINT)
# Written into the pipe of signals at its end; no signal has that number.
END = b"\0"
# Seconds within which another Ctrl-C is the same one, passed on by a process around this one.
ECHO = 0.3
# Steps between two times that several processes ask each other whether to stop: to ask takes milliseconds.
AGREE_EVERY = 8
DUE = "due"


class Stops:
    """Whether somebody asked the run to stop.

    Python runs a signal's handler between two of its own instructions, and a step of training is one instruction of
    seconds. So a thread reads the signals, too: it answers at once, and leaves at once when it is told to twice.

    Args:
        is_process: whether the process is the run's own, to be left at once by another Ctrl-C; else that raises
            Interrupted as soon as Python gets to it, as in a notebook.
        replaces: whether the run is to take the place of an earlier one.

        agree: for a run of several processes, which have to stop after the same step: says a word to all of them, ""
            for none, and returns the first one that was said; waits for all. None: a run of this process alone.

    Attributes:
        asked_by: the name of the signal; None while there was none, or while the processes have not agreed on it.
        is_begun: whether the folder is this run's; an earlier one is as it was until then. To be set by the run.
    """

    def __init__(self, *, is_process: bool = False, replaces: bool = False, agree: Callable[[str], str] | None = None):
        self.asked_by: str | None = None
        self.is_begun = False
        self.is_process, self.replaces = is_process, replaces
        self._agree, self._asks = agree, 0
        self._heard = ""
        self._asked_at = 0.0
        self._is_deferred = False
        self._is_over = False

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Takes the signals over; in a thread that is not the main one it cannot, and leaves them as they are.

        Until `deferred`, a signal raises Interrupted wherever the run is. One that is ignored stays so.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        with contextlib.ExitStack() as undo:
            reader, writer = os.pipe()
            undo.callback(os.close, reader)
            os.set_blocking(writer, False)
            thread = threading.Thread(target=self._read, args=(reader,), daemon=True)
            thread.start()
            undo.callback(os.close, writer)
            undo.callback(thread.join)
            undo.callback(os.write, writer, END)  # closing it would not end the thread while a forked process has it
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

    def ask(self, is_due: bool = False, *, now: bool = False) -> bool:
        """Whether to pause: because of a signal, or as it is due for another reason.

        Several processes find that out together, the signals and reasons of all of them, at each AGREE_EVERY-th call,
        the answer being no between; so each has to call it as often as the others.

        Args:
            is_due: whether it is due here.
            now: find it out at this call.
        """
        if self._agree is None:
            return bool(self.asked_by or is_due)
        self._asks += 1
        if not now and self._asks % AGREE_EVERY:
            return False
        word = self._agree(self._heard or (DUE if is_due else ""))
        if word not in ("", DUE):
            self.asked_by = word
        return bool(word)

    def check(self, where: str) -> None:
        """Raises Interrupted, with the words for where the run stands, if somebody asked for it."""
        if self.asked_by:
            raise Interrupted(f"interrupted by {self.asked_by} {where}; {self.way_on()}")

    def way_on(self) -> str:
        """The words for how the run is gone on with."""
        if not self.replaces:
            return "the same command goes on"
        if self.is_begun:
            return "the same command without --restart goes on"
        return "the earlier run is as it was, and the same command begins anew"

    def _on_signal(self, number: int, frame) -> None:
        if self._is_over:
            return
        if not self._heard:
            self._heard, self._asked_at = signal.Signals(number).name, time.monotonic()
            if self._agree is None or not self._is_deferred:
                self.asked_by = self._heard
        elif number == signal.SIGINT and not self.is_process and not self._is_echo():
            raise Interrupted(f"interrupted again, at once; {self.way_on()} from the last checkpoint")
        if not self._is_deferred:
            self.check("outside of training, where there is nothing to save")

    def _is_echo(self) -> bool:
        return time.monotonic() - self._asked_at <= ECHO

    def _read(self, reader: int) -> None:
        first = None
        while (number := os.read(reader, 1)) != END:
            if number[0] not in SIGNALS:
                continue
            now = time.monotonic()
            if first is None:
                first = now
                if self._is_deferred:
                    again = "; another Ctrl-C leaves at once" if number[0] == signal.SIGINT else ""
                    _say(f"{signal.Signals(number[0]).name}: stopping after this step, to save{again}")
            elif number[0] == signal.SIGINT and self.is_process and now - first > ECHO:
                _say(f"left at once, without saving; {self.way_on()} from the last checkpoint")
                os._exit(INTERRUPTED_STATUS)


def _say(line: str) -> None:
    """Writes to the screen from another thread, past Python's file, which the main one may be holding."""
    try:
        os.write(sys.stderr.buffer.fileno(), f"{line}\n".encode())
    except (AttributeError, OSError):  # a notebook's has no buffer, and its number is that of the server's screen
        print(line, file=sys.stderr, flush=True)


_mask: set[int] = set()


def _hold() -> None:
    """Before a fork: a signal to the forked process waits until it has forgotten the run."""
    global _mask
    _mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def _release() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _mask)


def _forget() -> None:
    """In a forked process, which is not the run: gives the signals back, and does not tell the run of them."""
    for number, default in zip(SIGNALS, (signal.SIG_DFL, signal.default_int_handler), strict=True):
        if isinstance(getattr(signal.getsignal(number), "__self__", None), Stops):
            signal.signal(number, default)
            signal.set_wakeup_fd(-1)
    _release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_hold, after_in_parent=_release, after_in_child=_forget)

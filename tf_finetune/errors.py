"""How a command ends other than well: "your input", "this run cannot go on", "you stopped it", "the answer is no"."""

# EX_TEMPFAIL of sysexits.h: to be tried again.
INTERRUPTED_STATUS = 75
# Measured, and the answer is no; 1 and 2 say that nothing was measured.
FOUND_STATUS = 3


def _in_a_notebook(error: Exception) -> list[str]:
    """What IPython shows instead of a traceback, which would be of our code and not of the user's."""
    return [f"error: {error}"]


class InputError(Exception):
    """Something the user gave is wrong: a flag, a file, a row, a checkpoint.

    The command line prints it as `error: MESSAGE` on one line and exits with status 2. It is not a
    ValueError, because absl flags and Keras both catch those and wrap them in text of their own.

    Args:
        what: what is wrong, in a few words.
        where: the file, row, flag or field it was found in.
        expected: what would have been right.
        got: what came instead.
    """

    def __init__(self, what: str, *, where: object = None, expected: object = None, got: object = None):
        parts = [what]
        if where is not None:
            parts.append(f"in {where}")
        if expected is not None:
            parts.append(f"expected {expected}")
        if got is not None:
            parts.append(f"got {got}")
        super().__init__(" ".join(", ".join(parts).split()))
        self.what, self.where = what, where

    def _render_traceback_(self) -> list[str]:
        return _in_a_notebook(self)


class RunError(Exception):
    """The input was fine and the run still cannot go on: the loss is not finite, an export broke a promise.

    The command line prints it as `error: MESSAGE` on one line and exits with status 1.
    """

    def _render_traceback_(self) -> list[str]:
        return _in_a_notebook(self)


class Interrupted(KeyboardInterrupt):
    """SIGTERM or Ctrl-C ended a training run, which the same command goes on with.

    A KeyboardInterrupt, so that no library takes it for a mistake of its own and goes on. The command line prints it on
    one line and exits with INTERRUPTED_STATUS.
    """

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


class Found(Exception):
    """A command has measured and said what it found, and a scheduler is to know: new texts have drifted.

    Nothing went wrong, so the command line prints nothing more and exits with FOUND_STATUS.
    """

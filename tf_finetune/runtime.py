"""What a run says on the screen, and the precision that models are built in."""

import contextlib
import logging
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence


def warn(text: str) -> None:
    """Says what may be a mistake and does not stop the run."""
    print(f"warning: {text}", file=sys.stderr, flush=True)


def advise(text: str | None) -> None:
    """Warns, where there is something to say."""
    if text:
        warn(text)


def printable(text: str, *, spared: str = "") -> str:
    """The text with what is not written as itself (controls, marks of direction, surrogates) as Python escapes it, but
    for the spared characters."""
    return "".join(one if one.isprintable() or one in spared else ascii(one)[1:-1] for one in text)


def say(line: str) -> None:
    """Prints a line with words of the data in it.

    Control characters are spelt out, because a label must not steer the terminal; so are letters that the terminal's
    encoding does not have.
    """
    shown = printable(line)
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"  # a notebook's stream need not have one
    print(shown.encode(encoding, "backslashreplace").decode(encoding), flush=True)


def quieten_libraries() -> None:
    """For the rest of the process: of TensorFlow and transformers only errors are shown, unless the environment says
    otherwise. To be called before they are imported."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # it announces that PyTorch is missing
    logging.getLogger("tensorflow").setLevel(logging.ERROR)  # it calls a second model in one process a mistake


def import_tensorflow_quietly() -> None:
    """Imports TensorFlow without the lines that 2.21 logs while it loads, whatever the log level says."""
    log = logging.getLogger("tensorflow")
    level = log.level
    with quietly():
        import tensorflow  # noqa: F401
    if level:
        log.setLevel(level)  # in a notebook TensorFlow has set its own


@contextlib.contextmanager
def quietly(*, streams: Sequence[int] = (2,)) -> Iterator[None]:
    """What native code says inside, on standard error or on whichever streams, is not shown; exceptions are raised as
    ever."""
    with tempfile.TemporaryFile() as unread:
        kept = [os.dup(stream) for stream in streams]
        for stream in streams:
            os.dup2(unread.fileno(), stream)
        try:
            yield
        finally:
            for stream, before in zip(streams, kept, strict=True):
                os.dup2(before, stream)
                os.close(before)


@contextlib.contextmanager
def precision_policy(policy: str) -> Iterator[None]:
    """Models built inside compute in this Keras dtype policy ("float32", "mixed_bfloat16")."""
    import keras

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)

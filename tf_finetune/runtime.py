"""Seeds, precision and devices: what was asked for, and what it resolved to on this machine."""

import contextlib
import logging
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from tf_finetune.config import Precision
from tf_finetune.errors import InputError

# Tokens of the matrix product that a step's arithmetic is compared with: as many as a batch has, roughly.
MATRIX_ROWS = 2048
MATRIX_SECONDS = 0.2


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
def quietly() -> Iterator[None]:
    """What native code says on standard error inside is not shown; exceptions are raised as ever."""
    with tempfile.TemporaryFile() as unread:
        kept = os.dup(2)
        os.dup2(unread.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)


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


def disable_reduced_float32() -> None:
    """Makes float32 mean float32 on GPUs too, which otherwise multiply it as TF32 with ten bits of mantissa."""
    import tensorflow as tf

    tf.config.experimental.enable_tensor_float_32_execution(False)


def use_deterministic_operations() -> None:
    """For the rest of the process; TensorFlow has no way back."""
    import tensorflow as tf

    tf.config.experimental.enable_op_determinism()


def is_deterministic() -> bool:
    """Whether only such operations are allowed, by the config or by TF_DETERMINISTIC_OPS."""
    import tensorflow as tf

    try:  # TensorFlow has no question for it; the clock is no deterministic operation
        tf.timestamp()
    except tf.errors.FailedPreconditionError:
        return True
    return False


def check_backend() -> None:
    """Raises InputError where the environment asks Keras for what the commands cannot run on."""
    legacy, backend = os.environ.get("TF_USE_LEGACY_KERAS", ""), os.environ.get("KERAS_BACKEND", "tensorflow")
    if legacy.lower() in ("1", "true"):
        got, expected = f"TF_USE_LEGACY_KERAS={legacy}", "TF_USE_LEGACY_KERAS unset"
        raise InputError("this needs Keras 3", where="the environment", expected=expected, got=got)
    if backend != "tensorflow":
        got, expected = f"KERAS_BACKEND={backend}", "KERAS_BACKEND=tensorflow or unset"
        raise InputError("the commands run on TensorFlow", where="the environment", expected=expected, got=got)


def training_policy(precision: Precision) -> str:
    """The Keras dtype policy behind `runtime.precision`."""
    if precision is Precision.AUTO:
        precision = Precision.BFLOAT16 if has_native_bfloat16() else Precision.FLOAT32
    return "mixed_bfloat16" if precision is Precision.BFLOAT16 else "float32"


def has_native_bfloat16() -> bool:
    """Whether the device multiplies bfloat16 in hardware; where it does not, bfloat16 is slower than float32."""
    import tensorflow as tf

    if found := gpus():
        return tf.config.experimental.get_device_details(found[0]).get("compute_capability", (0, 0)) >= (8, 0)
    cpuinfo = Path("/proc/cpuinfo")
    flags = cpuinfo.read_text() if cpuinfo.is_file() else ""
    return "avx512_bf16" in flags or "amx_bf16" in flags


def gpus() -> list:
    """The GPUs that TensorFlow sees."""
    import tensorflow as tf

    return tf.config.list_physical_devices("GPU")


def matrix_rate(dtype: str, *, hidden_size: int, intermediate_size: int) -> float:
    """Operations a second that the device reaches in the largest matrix product of a model's layers, the best of a few.

    It takes MATRIX_SECONDS, or three products where those take longer.

    Args:
        dtype: "float32" or "bfloat16".
        hidden_size: columns of the left matrix, which has MATRIX_ROWS rows.
        intermediate_size: columns of the right one.
    """
    import tensorflow as tf

    left = tf.cast(tf.random.stateless_normal((MATRIX_ROWS, hidden_size), seed=(0, 0)), dtype)
    right = tf.cast(tf.random.stateless_normal((hidden_size, intermediate_size), seed=(0, 1)), dtype)

    def seconds(products: int) -> float:
        began = time.perf_counter()
        for _ in range(products):
            product = tf.linalg.matmul(left, right)
        product[0, 0].numpy()  # a device may have taken all of them on before it finished the first
        return (time.perf_counter() - began) / products

    began = time.perf_counter()
    seconds(1)  # the first one also sets the libraries up
    best = seconds(1)
    together = min(max(int(MATRIX_SECONDS / 10 / best), 1), 100)
    while time.perf_counter() - began < MATRIX_SECONDS:
        best = min(best, seconds(together))
    return 2 * MATRIX_ROWS * hidden_size * intermediate_size / best


def surroundings(policy: str) -> dict[str, str | int | bool]:
    """What the bits of a training run depend on beside its config, its data and how its operations are compiled."""
    found = gpus()
    names = ("tf_finetune", "tensorflow", "keras", "numpy")
    return {
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in names},
        "system": platform.system(),
        "processor": _processor(),
        "cores": _cores(),
        "threads": _threads(),
        "gpus": ", ".join(device_name(one) for one in found) or "none",
        "precision": policy,
        "deterministic": is_deterministic(),
    }


def _processor() -> str:
    """By the name it gives itself, as far as that can be read."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def _threads() -> int:
    """Those that share one of TensorFlow's operations."""
    import tensorflow as tf

    chosen = os.environ.get("TF_NUM_INTRAOP_THREADS", "")
    return tf.config.threading.get_intra_op_parallelism_threads() or (int(chosen) if chosen.isdigit() else _cores())


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def device_name(gpu) -> str:
    """Of one of `gpus`."""
    import tensorflow as tf

    return tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name)


def describe(policy: str) -> str:
    """One line: device, cores, versions and precision."""
    import keras
    import tensorflow as tf

    found = gpus()
    device = f"{len(found)} GPU" if found else f"CPU, {_cores()} cores"
    return (
        f"{device}; {policy}; TensorFlow {tf.__version__}, Keras {keras.__version__} "
        f"({keras.backend.backend()}), Python {platform.python_version()}"
    )

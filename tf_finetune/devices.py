"""Which devices train and on which backend: what was asked for, what it came to on this machine, and why."""

import contextlib
import contextvars
import dataclasses
import importlib.util
import os
import platform
import sys
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from tf_finetune import processes, tf_strategies
from tf_finetune.config import Backend, Precision, Strategy
from tf_finetune.errors import InputError

# Tokens of the matrix product that a step's arithmetic is compared with: as many as a batch has, roughly.
MATRIX_ROWS = 2048
MATRIX_SECONDS = 0.2
# What XLA is told on GPUs, in XLA_FLAGS.
DETERMINISTIC = "--xla_gpu_deterministic_ops=true"


@dataclasses.dataclass(frozen=True)
class Devices:
    """What trains.

    Attributes:
        policy: the Keras dtype policy of training, "float32" or "mixed_bfloat16".
        backend: Keras's, "tensorflow" or "jax".
        kind: "CPU", "GPU" or "TPU".
        names: of the devices that share each batch, a replica of the model on each; at least one.
        strategy: how they share it; never AUTO.
        why: a reason for "devices", "backend", "precision" and "strategy" each, in words.
    """

    policy: str
    backend: str
    kind: str
    names: tuple[str, ...]
    strategy: Strategy
    why: dict[str, str]

    @property
    def replicas(self) -> int:
        """Devices that share each batch: its rows are a multiple of them."""
        return len(self.names)

    @property
    def facts(self) -> dict[str, str | int]:
        """What of it the bits of a training run depend on."""
        shared = {"replicas": self.replicas, "processes": processes.count()}
        return {"backend": self.backend, "strategy": self.strategy.value, **shared}

    @contextlib.contextmanager
    def scope(self) -> Iterator[None]:
        """Models are built, compiled and trained inside of it."""
        token = _at_work.set(self.replicas)
        try:
            with self._scope_of_keras():
                yield
        finally:
            _at_work.reset(token)

    @contextlib.contextmanager
    def _scope_of_keras(self) -> Iterator[None]:
        if self.strategy is Strategy.DATA_PARALLEL:
            import keras

            mesh = keras.distribution.DeviceMesh((self.replicas,), ("batch",), list(self.names))
            # Every process makes its own part of each batch (`data.pipeline.batches`).
            with keras.distribution.DataParallel(device_mesh=mesh, auto_shard_dataset=False).scope():
                yield
        elif self.strategy is Strategy.MIRRORED:
            with tf_strategies.mirrored(self.names):
                yield
        elif self.strategy is Strategy.TPU:
            with tf_strategies.tpu():
                yield
        else:
            yield


_at_work = contextvars.ContextVar("_at_work", default=1)


def replicas_at_work() -> int:
    """How many devices share each batch within the scope that this is called in: the rows are a multiple of them."""
    return _at_work.get()


def part_at_work() -> tuple[int, int]:
    """Which part of each batch this process makes within the scope that this is called in, of how many."""
    return (processes.index(), processes.count()) if replicas_at_work() > 1 else (0, 1)


def choose(
    *, backend: Backend = Backend.AUTO, strategy: Strategy = Strategy.AUTO, precision: Precision = Precision.AUTO
) -> Devices:
    """The devices that train; imports Keras, whose backend `check_backend` has seen to.

    Args:
        backend: as asked for.
        strategy: as asked for.
        precision: as asked for.

    Raises:
        InputError: the backend has no such strategy.
    """
    if _is_jax():
        _keep_gpus_from_tensorflow()
    names, chosen, why = _on_jax(strategy) if _is_jax() else _on_tensorflow(strategy)
    by_default = "of KERAS_BACKEND, or the default where that is not set"
    why["backend"] = by_default if backend is Backend.AUTO else "as runtime.backend says"
    why["precision"] = _why_precision(precision)
    return Devices(training_policy(precision), keras_backend(), kind(), names, chosen, why)


def _on_jax(strategy: Strategy) -> tuple[tuple[str, ...], Strategy, dict[str, str]]:
    """Names, strategy and reasons."""
    if strategy in (Strategy.MIRRORED, Strategy.TPU):
        _refuse(strategy, "auto, one_device or data_parallel on JAX")
    processes.connect()
    found, together = _jax_devices_of_all(), processes.count()
    if together > 1 and strategy is Strategy.ONE_DEVICE:
        _refuse(strategy, f"auto or data_parallel, as there are {together} processes")
    names = tuple(f"{one.platform}:{one.id}" for one in found)
    chosen, reason = strategy, "as runtime.strategy says"
    if strategy is Strategy.AUTO:
        chosen = Strategy.DATA_PARALLEL if len(found) > 1 else Strategy.ONE_DEVICE
        reason = f"there are {len(found)} devices" if len(found) > 1 else "there is one device"
    kinds, where = ", ".join(sorted({one.device_kind for one in found})), f" in {together} processes"
    why = {"devices": f"JAX sees {len(found)}{where if together > 1 else ''}: {kinds}"}
    return names[:1] if chosen is Strategy.ONE_DEVICE else names, chosen, why | {"strategy": reason}


def _on_tensorflow(strategy: Strategy) -> tuple[tuple[str, ...], Strategy, dict[str, str]]:
    """Names, strategy and reasons."""
    if strategy is Strategy.DATA_PARALLEL:
        _refuse(strategy, "auto, one_device, mirrored or tpu on TensorFlow")
    if strategy is Strategy.TPU:
        names = tf_strategies.for_tpu()
        return names, strategy, {"devices": f"a TPU of {len(names)} cores", "strategy": "as runtime.strategy says"}
    found = gpus()
    why = {"devices": ", ".join(device_name(one) for one in found) or "TensorFlow sees no GPU"}
    if strategy is Strategy.MIRRORED or (strategy is Strategy.AUTO and len(found) > 1):
        names = tf_strategies.for_mirrored()
        reason = "as runtime.strategy says" if strategy is Strategy.MIRRORED else f"there are {len(found)} GPUs"
        if len(names) == 1:
            reason += ", with one replica: there is one device"
        return names, Strategy.MIRRORED, why | {"strategy": reason}
    reason = "as runtime.strategy says" if strategy is Strategy.ONE_DEVICE else "there is one device"
    return (f"{kind()}:0",), Strategy.ONE_DEVICE, why | {"strategy": reason}


def _refuse(strategy: Strategy, expected: str) -> None:
    raise InputError("no such strategy", where="runtime.strategy", expected=expected, got=strategy.value)


def _why_precision(asked: Precision) -> str:
    if asked is not Precision.AUTO:
        return "as runtime.precision says"
    how = "natively" if has_native_bfloat16() else "no faster than float32, if at all"
    return f"the {kind()} multiplies bfloat16 {how}"


def check_backend(backend: Backend = Backend.AUTO) -> str:
    """What a command is to run on, "tensorflow" or "jax"; sees to it that Keras does, where it is not imported yet.

    Args:
        backend: as asked for. AUTO means KERAS_BACKEND of the environment, else what Keras is on already, else
            TensorFlow.

    Raises:
        InputError: the environment asks Keras for what the commands cannot run on, Keras is on another backend, or JAX
            is missing.
    """
    legacy, environment = os.environ.get("TF_USE_LEGACY_KERAS", ""), os.environ.get("KERAS_BACKEND")
    if legacy.lower() in ("1", "true"):
        got, expected = f"TF_USE_LEGACY_KERAS={legacy}", "TF_USE_LEGACY_KERAS unset"
        raise InputError("this needs Keras 3", where="the environment", expected=expected, got=got)
    if environment not in (None, "tensorflow", "jax"):
        got, expected = f"KERAS_BACKEND={environment}", "KERAS_BACKEND=tensorflow, jax or unset"
        raise InputError("the commands run on TensorFlow and JAX", where="the environment", expected=expected, got=got)
    imported = keras_backend() if "keras" in sys.modules else None
    wanted = backend.value if backend is not Backend.AUTO else imported or environment or "tensorflow"
    if imported not in (None, wanted):
        expected = f"KERAS_BACKEND={wanted} in the environment before Keras is imported"
        raise InputError(
            f"runtime.backend={wanted} in a process that has Keras on another", expected=expected, got=imported
        )
    if wanted == "jax" and importlib.util.find_spec("jax") is None:
        raise InputError("JAX is not installed", where="runtime.backend", expected="pip install 'tf_finetune[jax]'")
    os.environ["KERAS_BACKEND"] = wanted  # a Keras configuration file in the home folder may say otherwise
    return wanted


def keras_backend() -> str:
    """What Keras runs on in this process."""
    import keras

    return keras.backend.backend()


def _is_jax() -> bool:
    return keras_backend() == "jax"


def _jax_devices() -> list:
    import jax

    return jax.local_devices()


def _jax_devices_of_all() -> list:
    """Those of each process, in the order of the processes."""
    if processes.count() == 1:
        return _jax_devices()
    import jax

    return sorted(jax.devices(), key=lambda one: (one.process_index, one.id))


def _keep_gpus_from_tensorflow() -> None:
    """It makes JAX's batches on the CPU, and would take the memory of every GPU as it begins."""
    import tensorflow as tf

    with contextlib.suppress(RuntimeError):  # it has begun
        tf.config.set_visible_devices([], "GPU")


def kind() -> str:
    """Of the devices that Keras computes on: "CPU", "GPU" or "TPU"."""
    if _is_jax():
        return _jax_devices()[0].platform.upper()
    import tensorflow as tf

    if tf.config.list_physical_devices("TPU"):
        return "TPU"
    return "GPU" if gpus() else "CPU"


def gpus() -> list:
    """The GPUs that TensorFlow sees, or those of JAX where Keras runs on it."""
    if _is_jax():
        return [one for one in _jax_devices() if one.platform == "gpu"]
    import tensorflow as tf

    return tf.config.list_physical_devices("GPU")


def device_name(gpu) -> str:
    """Of one of `gpus`."""
    if _is_jax():
        return gpu.device_kind
    import tensorflow as tf

    return tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name)


def disable_reduced_float32() -> None:
    """Makes float32 mean float32 on GPUs and TPUs too, which otherwise multiply it with fewer bits of mantissa."""
    if _is_jax():
        import jax

        jax.config.update("jax_default_matmul_precision", "highest")
        return
    import tensorflow as tf

    tf.config.experimental.enable_tensor_float_32_execution(False)


def use_deterministic_operations() -> None:
    """For the rest of the process; TensorFlow has no way back. JAX reads it before it sees its devices."""
    if _is_jax():
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {DETERMINISTIC}".strip()
        return
    import tensorflow as tf

    tf.config.experimental.enable_op_determinism()


def is_deterministic() -> bool:
    """Whether only such operations are allowed, by the config or by the environment."""
    if _is_jax():
        return DETERMINISTIC in os.environ.get("XLA_FLAGS", "")
    import tensorflow as tf

    try:  # TensorFlow has no question for it; the clock is no deterministic operation
        tf.timestamp()
    except tf.errors.FailedPreconditionError:
        return True
    return False


def training_policy(precision: Precision) -> str:
    """The Keras dtype policy behind `runtime.precision`."""
    if precision is Precision.AUTO:
        precision = Precision.BFLOAT16 if has_native_bfloat16() else Precision.FLOAT32
    return "mixed_bfloat16" if precision is Precision.BFLOAT16 else "float32"


def has_native_bfloat16() -> bool:
    """Whether the device multiplies bfloat16 in hardware; where it does not, bfloat16 is slower than float32."""
    if kind() == "TPU":
        return True
    if found := gpus():
        return _compute_capability(found[0]) >= (8, 0)
    cpuinfo = Path("/proc/cpuinfo")
    flags = cpuinfo.read_text() if cpuinfo.is_file() else ""
    return "avx512_bf16" in flags or "amx_bf16" in flags


def _compute_capability(gpu) -> tuple[int, ...]:
    if _is_jax():
        return tuple(map(int, str(getattr(gpu, "compute_capability", "0.0")).split(".")))
    import tensorflow as tf

    return tf.config.experimental.get_device_details(gpu).get("compute_capability", (0, 0))


def matrix_rate(dtype: str, *, hidden_size: int, intermediate_size: int) -> float:
    """Operations a second that a device reaches in the largest matrix product of a model's layers, the best of a few.

    It takes MATRIX_SECONDS, or three products where those take longer.

    Args:
        dtype: "float32" or "bfloat16".
        hidden_size: columns of the left matrix, which has MATRIX_ROWS rows.
        intermediate_size: columns of the right one.
    """
    sizes = (MATRIX_ROWS, hidden_size), (hidden_size, intermediate_size)
    multiply, first_value = _multiplied_by_jax(dtype, *sizes) if _is_jax() else _multiplied_by_tensorflow(dtype, *sizes)

    def seconds(products: int) -> float:
        began = time.perf_counter()
        for _ in range(products):
            product = multiply()
        first_value(product)  # a device may have taken all of them on before it finished the first
        return (time.perf_counter() - began) / products

    began = time.perf_counter()
    seconds(1)  # the first one also sets the libraries up
    best = seconds(1)
    together = min(max(int(MATRIX_SECONDS / 10 / best), 1), 100)
    while time.perf_counter() - began < MATRIX_SECONDS:
        best = min(best, seconds(together))
    return 2 * MATRIX_ROWS * hidden_size * intermediate_size / best


def _multiplied_by_tensorflow(dtype: str, *sizes: tuple[int, int]):
    """A product of two random matrices, and what waits for it."""
    import tensorflow as tf

    left, right = (
        tf.cast(tf.random.stateless_normal(size, seed=(0, number)), dtype) for number, size in enumerate(sizes)
    )
    return lambda: tf.linalg.matmul(left, right), lambda product: product[0, 0].numpy()


def _multiplied_by_jax(dtype: str, *sizes: tuple[int, int]):
    """The same on JAX."""
    import jax

    left, right = (jax.random.normal(jax.random.key(number), size, dtype) for number, size in enumerate(sizes))
    multiply = jax.jit(jax.numpy.matmul)
    return lambda: multiply(left, right), lambda product: product.block_until_ready()


def surroundings(policy: str) -> dict[str, str | int | bool]:
    """What the bits of a training run depend on beside its config, its data, the devices that share its batches and how
    its operations are compiled."""
    found = gpus()
    names = ("tf_finetune", "tensorflow", "keras", "numpy", *(("jax", "jaxlib") if _is_jax() else ()))
    return {
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in names},
        "system": platform.system(),
        "processor": _processor(),
        "cores": cores(),
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
    """Those that share one of TensorFlow's operations; JAX takes as many as there are cores."""
    if _is_jax():
        return cores()
    import tensorflow as tf

    chosen = os.environ.get("TF_NUM_INTRAOP_THREADS", "")
    return tf.config.threading.get_intra_op_parallelism_threads() or (int(chosen) if chosen.isdigit() else cores())


def cores() -> int:
    """Of the processor, as many as this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def describe(policy: str) -> str:
    """One line: device, cores, versions and precision."""
    found = _jax_devices() if _is_jax() else gpus()
    device = f"{len(found)} {kind()}" if kind() != "CPU" else f"CPU, {cores()} cores"
    return (
        f"{device}; {policy}; {_library()}, Keras {metadata.version('keras')} "
        f"({keras_backend()}), Python {platform.python_version()}"
    )


def _library() -> str:
    return f"JAX {metadata.version('jax')}" if _is_jax() else f"TensorFlow {metadata.version('tensorflow')}"

"""Which devices train and on which backend: what was asked for, what it came to on this machine, and why."""

import contextlib
import contextvars
import dataclasses
import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from tf_finetune import processes, runtime, tf_strategies
from tf_finetune.config import Backend, Precision, Strategy
from tf_finetune.errors import InputError

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
    names, chosen, why = _on_jax(strategy) if _is_jax() else _on_tensorflow(strategy)
    by_default = "of KERAS_BACKEND, or the default where that is not set"
    why["backend"] = by_default if backend is Backend.AUTO else "as runtime.backend says"
    device = "TPU" if chosen is Strategy.TPU else kind()
    why["precision"] = _why_precision(precision, device)
    return Devices(training_policy(precision, device), keras_backend(), device, names, chosen, why)


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
    if strategy is Strategy.AUTO and _sees_tpu():
        runtime.warn("there is a TPU, which --config.runtime.strategy=tpu --config.train.num_shapes=4 trains on")
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


def _why_precision(asked: Precision, device: str) -> str:
    if asked is not Precision.AUTO:
        return "as runtime.precision says"
    how = "natively" if device == "TPU" or has_native_bfloat16() else "no faster than float32, if at all"
    return f"the {device} multiplies bfloat16 {how}"


def check_backend(backend: Backend = Backend.AUTO) -> str:
    """What a command is to run on, "tensorflow" or "jax"; sees to it that Keras does, where it is not imported yet.

    Args:
        backend: as asked for. AUTO means what Keras is on already, else KERAS_BACKEND of the environment, else
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


def jax_devices() -> list:
    """Those of this process, on JAX."""
    import jax

    return jax.local_devices()


def _jax_devices_of_all() -> list:
    """Those of each process, in the order of the processes."""
    if processes.count() == 1:
        return jax_devices()
    import jax

    return sorted(jax.devices(), key=lambda one: (one.process_index, one.id))


def kind() -> str:
    """Of the devices that Keras computes on: "CPU", "GPU" or "TPU"; TensorFlow's TPU is one within its scope alone."""
    if _is_jax():
        return jax_devices()[0].platform.upper()
    import tensorflow as tf

    if isinstance(tf.distribute.get_strategy(), tf.distribute.TPUStrategy):
        return "TPU"
    return "GPU" if gpus() else "CPU"


def _sees_tpu() -> bool:
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("TPU"))


def gpus() -> list:
    """The GPUs that TensorFlow sees, or those of JAX where Keras runs on it."""
    if _is_jax():
        return [one for one in jax_devices() if one.platform == "gpu"]
    import tensorflow as tf

    return tf.config.list_physical_devices("GPU")


def device_name(gpu) -> str:
    """Of one of `gpus`."""
    if _is_jax():
        return gpu.device_kind
    import tensorflow as tf

    return tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name)


def disable_reduced_float32() -> None:
    """Makes float32 mean float32 on GPUs too, which otherwise multiply it with fewer bits of mantissa: on TensorFlow,
    for the rest of the process. On JAX `whole_float32` does so.
    """
    if _is_jax():
        return
    import tensorflow as tf

    tf.config.experimental.enable_tensor_float_32_execution(False)


@contextlib.contextmanager
def whole_float32() -> Iterator[None]:
    """What JAX computes inside multiplies float32 as such on GPUs and TPUs too."""
    if not _is_jax():
        yield
        return
    import jax

    with jax.default_matmul_precision("highest"):
        yield


def use_deterministic_operations() -> None:
    """For the rest of the process; TensorFlow has no way back. JAX reads it before it sees its devices.

    Raises:
        InputError: JAX has seen GPUs.
    """
    if _is_jax():
        if is_deterministic():
            return
        if _jax_has_begun() and kind() == "GPU":
            expected = f"XLA_FLAGS={DETERMINISTIC} in the environment before JAX begins"
            got = "a process in which JAX has begun"
            raise InputError("too late for other operations", where="runtime.deterministic", expected=expected, got=got)
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {DETERMINISTIC}".strip()
        return
    import tensorflow as tf

    tf.config.experimental.enable_op_determinism()


def _jax_has_begun() -> bool:
    """Whether it has seen its devices; there is no public way to ask."""
    from jax._src import xla_bridge

    return xla_bridge.backends_are_initialized()


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


def training_policy(precision: Precision, device: str = "") -> str:
    """The Keras dtype policy behind `runtime.precision`, on what `kind` says where no kind of device is given."""
    if precision is Precision.AUTO:
        precision = Precision.BFLOAT16 if device == "TPU" or has_native_bfloat16() else Precision.FLOAT32
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

"""What a process runs on: versions, processor and devices, as a manifest has them, and in a line."""

import importlib
import os
import platform
from pathlib import Path

from tf_finetune import devices


def found(policy: str) -> dict[str, str | int | bool]:
    """What the bits of a training run depend on beside its config, its data, the devices that share its batches and how
    its operations are compiled."""
    gpus = devices.gpus()
    of_jax = ("jax", "jaxlib") if devices.keras_backend() == "jax" else ()
    names = ("tf_finetune", "tensorflow", "keras", "numpy", *of_jax)
    return {
        "python": platform.python_version(),
        **{name: importlib.import_module(name).__version__ for name in names},
        "system": platform.system(),
        "processor": _processor(),
        "cores": _cores(),
        "threads": _threads(),
        "gpus": ", ".join(devices.device_name(one) for one in gpus) or "none",
        "precision": policy,
        "deterministic": devices.is_deterministic(),
    }


def _processor() -> str:
    """By the name it gives itself, as far as that can be read."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def _threads() -> int:
    """Those that share one of TensorFlow's operations; JAX takes as many as there are cores."""
    if devices.keras_backend() == "jax":
        return _cores()
    import tensorflow as tf

    chosen = os.environ.get("TF_NUM_INTRAOP_THREADS", "")
    return tf.config.threading.get_intra_op_parallelism_threads() or (int(chosen) if chosen.isdigit() else _cores())


def _cores() -> int:
    """Of the processor, as many as this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def in_words(policy: str) -> str:
    """One line: device, cores, versions and precision."""
    import keras

    kind = devices.kind()
    device = f"CPU, {_cores()} cores" if kind == "CPU" else f"{_number(kind)} {kind}"
    return (
        f"{device}; {policy}; {_library()}, Keras {keras.__version__} "
        f"({keras.backend.backend()}), Python {platform.python_version()}"
    )


def _number(kind: str) -> int:
    """Of devices that this process sees, where they are no CPU."""
    if devices.keras_backend() == "jax":
        return len(devices.jax_devices())
    import tensorflow as tf

    return len(tf.config.list_logical_devices(kind) if kind == "TPU" else devices.gpus())


def _library() -> str:
    name, module = ("JAX", "jax") if devices.keras_backend() == "jax" else ("TensorFlow", "tensorflow")
    return f"{name} {importlib.import_module(module).__version__}"

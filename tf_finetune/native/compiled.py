"""kernels.cc and its headers compiled on the machine that trains, once: TensorFlow operations for training on a CPU.

They need Linux and a C++ compiler ($CXX, c++, g++ or clang++). Where there is none, or a GPU trains, `operations` gives
None and plain TensorFlow computes the same, slower. Nothing of this is in an export.
"""

import contextlib
import functools
import hashlib
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from tf_finetune import devices, packages, runtime

SOURCES = Path(__file__).parent
# Without the first two a compiler must expect that somebody looks at errno and at traps after each function.
FLAGS = ("-O3", "-std=c++17", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast", "-fopenmp-simd")
LIBRARY = ("-fPIC", "-shared")
FOR_THIS_PROCESSOR = "-march=native"

_wanted = True
_one_at_a_time = threading.Lock()


def use(wanted: bool) -> None:
    """Chooses whether models that train from now on use what is compiled, where it can be had; they do unless told."""
    global _wanted
    _wanted = wanted


@contextlib.contextmanager
def unused() -> Iterator[None]:
    """What is traced inside has plain operations: XLA knows no others."""
    before = _wanted
    use(False)
    try:
        yield
    finally:
        use(before)


def start() -> None:
    """Compiles in the background, while a command reads its data and imports TensorFlow."""

    def build():
        with contextlib.suppress(OSError, subprocess.CalledProcessError):  # `operations` will say it
            library()

    if sys.platform == "linux" and _compiler():
        threading.Thread(target=build, daemon=True).start()


def operations() -> ModuleType | None:
    """The operations of kernels.cc as Python functions, such as `tf_finetune_bias_gelu`; None where there are none."""
    return _loaded() if _wanted else None


def state() -> str:
    """What `operations` are, in words."""
    if not _wanted:
        return "not compiled, as asked"
    return "compiled for this processor" if _loaded() else f"not compiled: {why_not()}"


def why_not() -> str:
    """Why there are no compiled operations; nothing where there are."""
    if sys.platform != "linux":
        return "only on Linux"
    if devices.keras_backend() != "tensorflow":
        return "JAX trains"
    if (kind := devices.kind()) != "CPU":
        return f"a {kind} trains"
    return "" if _compiler() else "no C++ compiler"


@functools.cache
def _loaded() -> ModuleType | None:
    import tensorflow as tf

    if why_not():
        return None
    try:
        return tf.load_op_library(str(library()))
    except (OSError, subprocess.CalledProcessError, tf.errors.OpError) as error:
        said = getattr(error, "stderr", None) or str(error)
        runtime.warn(f"training goes on without compiled operations: {said.strip()[-500:]}")
        return None


def library() -> Path:
    """The compiled file, in the cache; compiles it when it is not there, in a few seconds.

    Raises:
        OSError: the cache cannot be written to.
        subprocess.CalledProcessError: the compiler refuses it.
    """
    compiler, include = _compiler(), _tensorflow_headers()
    said = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True).stdout
    sources = [path.read_text() for path in sorted(SOURCES.glob("*.[ch]*"))]
    made_of = (sources, said, FLAGS, include, importlib.metadata.version("tensorflow"), _processor())
    key = hashlib.sha256(repr(made_of).encode()).hexdigest()[:16]
    path = packages.cache_folder() / "compiled" / f"kernels-{key}.so"
    with _one_at_a_time:
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=path.parent) as folder:  # in parts, another run would load it
                part = Path(folder) / path.name
                source = str(SOURCES / "kernels.cc")
                command = [compiler, *FLAGS, FOR_THIS_PROCESSOR, *LIBRARY, f"-I{include}", source, "-o", str(part)]
                subprocess.run(command, capture_output=True, text=True, check=True)
                part.rename(path)
    return path


def _compiler() -> str | None:
    names = (os.environ.get("CXX", ""), "c++", "g++", "clang++")
    return next((found for name in names if name and (found := shutil.which(name))), None)


def _tensorflow_headers() -> str:
    """Found without importing TensorFlow, which takes seconds."""
    return str(Path(importlib.util.find_spec("tensorflow").origin).parent / "include")


def _processor() -> str:
    """What the compiler may use on this machine: a home folder may be shared with another."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")

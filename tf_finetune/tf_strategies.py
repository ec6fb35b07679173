"""The strategies of tf.distribute: which devices there are for each, and the scope in which a model has its copies."""

import contextlib
import os
from collections.abc import Iterator

from tf_finetune.errors import InputError

# Of the environment: which TPU, where it is not this machine's own.
TPU_NAME = "TPU_NAME"


def for_mirrored() -> tuple[str, ...]:
    """Names of all GPUs; without one, of the CPU's logical devices: one, unless
    `tf.config.set_logical_device_configuration` has made more, to try things out."""
    import tensorflow as tf

    found = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    return tuple(_short(one.name) for one in found)


def for_tpu() -> tuple[str, ...]:
    """Names of all cores of the TPU, which is initialised: what was on it before is lost. Not yet tried on one.

    Raises:
        InputError: there is none.
    """
    import tensorflow as tf

    try:
        resolver = _tpu_resolver()
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    except (ValueError, RuntimeError, tf.errors.OpError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].partition(". ")[0]
        expected = f"a Cloud TPU VM with tensorflow-tpu, or the name of a TPU in {TPU_NAME}"
        raise InputError("no TPU to train on", where="runtime.strategy=tpu", expected=expected, got=reason) from None
    return tuple(_short(one.name) for one in tf.config.list_logical_devices("TPU"))


def _tpu_resolver():
    import tensorflow as tf

    return tf.distribute.cluster_resolver.TPUClusterResolver(tpu=os.environ.get(TPU_NAME) or "local")


def _short(name: str) -> str:
    """Such as GPU:0, of /device:GPU:0 or of a name with the machine in it."""
    return name.rpartition("/device:")[2]


@contextlib.contextmanager
def mirrored(names: tuple[str, ...]) -> Iterator[None]:
    """Models built inside have a copy on each of the devices, which share each batch."""
    import tensorflow as tf

    # TensorFlow's choice for GPUs is NCCL, which needs a GPU for each; between CPU devices its collectives serve one
    # group of them a process.
    is_virtual = len(tf.config.list_physical_devices("GPU")) < len(names)
    operations = tf.distribute.ReductionToOneDevice() if is_virtual else None
    with tf.distribute.MirroredStrategy(list(names), cross_device_ops=operations).scope():
        yield


@contextlib.contextmanager
def tpu() -> Iterator[None]:
    """The same on the cores of the TPU that `for_tpu` has initialised."""
    import tensorflow as tf

    with tf.distribute.TPUStrategy(_tpu_resolver()).scope():
        yield

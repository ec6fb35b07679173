"""What a training batch may weigh: the budget that fits, the warning before training, the advice when memory is out."""

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator

import numpy as np

from tf_finetune import devices, processes, runtime
from tf_finetune.bert.architecture import BertArchitecture
from tf_finetune.bert.memory import StepMemory, step_memory
from tf_finetune.config import ExperimentConfig
from tf_finetune.data.order import shape_set
from tf_finetune.errors import InputError, RunError
from tf_finetune.native import compiled
from tf_finetune.training import free_memory

GIB = 2**30
# Of what is free: others may take some meanwhile, allocators waste some, and the model of memory is a model.
SHARE = 0.7
# What an allocator says where TensorFlow has no class of error for it, and JAX always.
SIGNS = ("out of memory", "out_of_memory", "oom when allocating", "resource_exhausted")


def check_known(config: ExperimentConfig) -> None:
    """Refuses to look for a budget of tokens where nobody says how much memory is free.

    Raises:
        InputError: as said.
    """
    if config.train.batch_tokens == 0 and free_memory.of_machine() is None:
        raise _unknown("this machine's free memory cannot be read")


def with_budget(
    config: ExperimentConfig,
    lengths: np.ndarray,
    architecture: BertArchitecture,
    trained_weights: int | None = None,
) -> ExperimentConfig:
    """A copy in which train.batch_tokens=0 has become the most tokens that fit, on all devices at work together.

    Args:
        config: as it was asked for; where it says how large batches are, it comes back as it is.
        lengths: int [examples], tokens of each text of the training split.
        architecture: of the model, which is loaded already.
        trained_weights: numbers in the weights that are trained; None means all.

    Raises:
        InputError: not even one text of the longest length fits, or the free memory is not known.
    """
    if config.train.batch_tokens != 0:
        return config
    free = _free()
    if free is None:
        raise _unknown("this device does not say how much memory is free")
    replicas = devices.replicas_at_work()
    if devices.kind() == "CPU":  # whose logical devices share its memory
        free //= _replicas_here()
    tokens = _largest_budget(config, lengths, _step_memory(config, architecture, trained_weights), free)
    each = f" on each of {replicas} devices" if replicas > 1 else ""
    print(f"batch_tokens: {tokens} tokens a batch, by the {_gib(free)} free{each}", flush=True)
    return dataclasses.replace(config, train=dataclasses.replace(config.train, batch_tokens=tokens))


def warn_of_too_large(
    config: ExperimentConfig,
    lengths: np.ndarray,
    architecture: BertArchitecture,
    trained_weights: int | None = None,
) -> None:
    """Warns where the largest batch needs more memory than is free: Linux ends a process that takes it, unanswered.

    A GPU answers by itself on TensorFlow, and is not asked.

    Args:
        config: its budget of tokens found.
        lengths: int [examples], tokens of each text of the training split.
        architecture: of the model, which is loaded already.
        trained_weights: numbers in the weights that are trained; None means all.
    """
    if devices.gpus() and devices.keras_backend() == "tensorflow":
        return
    expected = expected_memory(config, lengths, architecture, trained_weights)
    if expected.free is not None and expected.needed > expected.free:
        texts, length = expected.texts, expected.length
        runtime.warn(
            f"a batch of {texts} texts x {length} tokens needs about {_gib(expected.needed)} of memory, and "
            f"{_gib(expected.free)} is free; if the run ends without a word, that was why: "
            f"{_advice(config, texts, length)}"
        )


@dataclasses.dataclass(frozen=True)
class ExpectedMemory:
    """What the largest batch of a run takes.

    Attributes:
        texts, length: of that batch, and tokens of each text.
        needed: bytes that a step takes beside the weights, on one device; on CPUs on all of this process, as they
            share it.
        free: bytes that may be taken there; None where nobody says.
    """

    texts: int
    length: int
    needed: int
    free: int | None

    def __str__(self):
        free = "nobody says how much is free" if self.free is None else f"{_gib(self.free)} free"
        return f"about {_gib(self.needed)}, {free}: a batch of {self.texts} texts x {self.length} tokens"


def expected_memory(
    config: ExperimentConfig,
    lengths: np.ndarray,
    architecture: BertArchitecture,
    trained_weights: int | None = None,
) -> ExpectedMemory:
    """The arguments are those of `warn_of_too_large`."""
    texts, length = _largest_batch(config, lengths)
    memory = _step_memory(config, architecture, trained_weights)
    needed = memory.of_batch(math.ceil(texts / _parts(config)), length)
    together = _replicas_here() if devices.kind() == "CPU" else 1
    return ExpectedMemory(texts, length, together * needed, _free())


def _replicas_here() -> int:
    """Devices of this process that share each batch; those of others are other machines'."""
    return devices.replicas_at_work() // processes.count() or 1


def _free() -> int | None:
    """Bytes that a device, or the machine of a CPU, may still give."""
    if devices.kind() == "CPU":
        return free_memory.of_machine()
    return free_memory.of_jax_device() if devices.keras_backend() == "jax" else free_memory.of_gpu()


@contextlib.contextmanager
def answered(what_to_do: Callable[[], str]) -> Iterator[None]:
    """What runs inside answers a lack of memory in one line.

    Args:
        what_to_do: gives the rest of "out of memory ...": `in_training` or `in_validation`.

    Raises:
        RunError: there was not enough memory.
    """
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise RunError(f"out of memory {what_to_do()}") from error


def in_training(config: ExperimentConfig, texts: int, length: int) -> str:
    """Which batch there was no room for, and what to change."""
    return f"in a batch of {texts} texts x {length} tokens: {_advice(config, texts, length)}"


def in_validation(batch_size: int) -> str:
    """The same of validation, which keeps nothing for a backward pass."""
    smaller = f"train.eval_batch_size={batch_size // 2} or " if batch_size > 1 else ""
    return f"in validation, {batch_size} texts a batch: try {smaller}a smaller data.max_length"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error, or what it came from, is a lack of memory: TensorFlow has several ways to say so."""
    import tensorflow as tf

    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, MemoryError | tf.errors.ResourceExhaustedError):
            return True
        if isinstance(error, tf.errors.OpError | RuntimeError) and any(s in str(error).lower() for s in SIGNS):
            return True
        error = error.__cause__ or error.__context__
    return False


def _step_memory(
    config: ExperimentConfig, architecture: BertArchitecture, trained_weights: int | None = None
) -> StepMemory:
    is_bfloat16 = devices.training_policy(config.runtime.precision) == "mixed_bfloat16"
    return step_memory(
        architecture,
        activation_bytes=2 if is_bfloat16 else 4,
        gradient_checkpointing=config.train.gradient_checkpointing,
        compiled=compiled.operations() is not None,
        accumulation=config.train.accumulation_steps > 1,
        averages=config.optimizer.ema_momentum > 0,
        replicas=devices.replicas_at_work(),
        trained_weights=trained_weights,
    )


def _largest_budget(config: ExperimentConfig, lengths: np.ndarray, memory: StepMemory, free: int) -> int:
    longest = _longest(config, lengths)
    tokens = memory.most_tokens(SHARE * free, longest)
    if tokens < longest:
        others = " or ".join(_smaller_texts(config, longest))
        raise InputError(
            "not even a batch of one text fits in memory",
            where="train.batch_tokens=0",
            expected=f"{_gib(memory.of_batch(1, longest) / SHARE)} free for {longest} tokens, or {others}",
            got=_gib(free),
        )
    if (parts := _parts(config)) > 1:  # of which one may hold a text more than its share
        tokens = parts * (tokens - longest)
    return max(longest, min(tokens, int(lengths.sum())))


def _parts(config: ExperimentConfig) -> int:
    """Of a batch, each of which has a device's memory to itself: on other devices, or one after the other."""
    return devices.replicas_at_work() * config.train.accumulation_steps


def _largest_batch(config: ExperimentConfig, lengths: np.ndarray) -> tuple[int, int]:
    """Texts, and tokens of each, of the batch that the longest text stands in."""
    longest, chosen = _longest(config, lengths), config.train
    texts = chosen.batch_size if chosen.batch_tokens < 0 else max(1, chosen.batch_tokens // longest)
    # Batches of fixed shapes are filled up with rows that stand for no example.
    return texts if chosen.num_shapes else min(texts, len(lengths)), longest


def _longest(config: ExperimentConfig, lengths: np.ndarray) -> int:
    if not config.train.num_shapes:
        return int(lengths.max())
    return shape_set(lengths, num_shapes=config.train.num_shapes, longest=config.data.max_length)[-1]


def _advice(config: ExperimentConfig, texts: int, length: int) -> str:
    """What to change, with the numbers of a batch half as large."""
    half = []
    if texts > 1 and config.train.batch_tokens < 0:
        half = [f"train.batch_size={texts // 2}"]
    elif texts > 1:
        half = [f"train.batch_tokens={texts * length // 2}"]
    pieces = 2 * config.train.accumulation_steps
    of_a_device = -(-texts // devices.replicas_at_work())
    half += [f"train.accumulation_steps={pieces}"] if pieces <= of_a_device else []
    *most, last = [*half, *_smaller_texts(config, length)]
    return f"try {', '.join(most)}{' or ' if most else ''}{last}"


def _smaller_texts(config: ExperimentConfig, length: int) -> list[str]:
    checkpointing = [] if config.train.gradient_checkpointing else ["train.gradient_checkpointing=true"]
    return [*checkpointing, f"a data.max_length below {length}"]


def _unknown(what: str) -> InputError:
    return InputError(
        what, where="train.batch_tokens=0", expected="a number of tokens, such as train.batch_tokens=4096"
    )


def _gib(size: float) -> str:
    return f"{size / GIB:.1f} GiB"

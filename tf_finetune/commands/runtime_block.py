"""What a training run computes on, in a block of lines: what was chosen, and why."""

from collections.abc import Sequence

from tf_finetune import surroundings
from tf_finetune.commands.batch_memory import ExpectedMemory
from tf_finetune.config import ExperimentConfig, Strategy
from tf_finetune.devices import Devices
from tf_finetune.native import compiled


def runtime_block(
    trained_on: Devices, config: ExperimentConfig, widths: Sequence[int], *, with_xla: bool, memory: ExpectedMemory
) -> str:
    """The lines of the block, the first as short as it can be.

    Args:
        trained_on: the devices.
        config: with its number of shapes found.
        widths: lengths that the batches of an epoch are padded to.
        with_xla: whether steps are compiled by XLA.
        memory: of the largest batch.
    """
    why, replicas = trained_on.why, trained_on.replicas
    is_compiled = with_xla or trained_on.backend == "jax" or trained_on.strategy is Strategy.TPU
    share = f"{replicas} devices share each batch" if replicas > 1 else "each batch is on one device"
    lines = {
        "devices": f"{replicas} {trained_on.kind}: {why['devices']}",
        "backend": f"{trained_on.backend}: {why['backend']}",
        "precision": f"{trained_on.policy}: {why['precision']}",
        "XLA": ("on: " if is_compiled else "off: ") + _xla(trained_on, with_xla),
        "strategy": f"{trained_on.strategy.value}, {share}: {why['strategy']}",
        "shapes": _shapes(config, widths, compiled_for=is_compiled),
        "memory": str(memory),
    }
    head = f"runtime: {surroundings.in_words(trained_on.policy)}; operations {compiled.state()}"
    return "\n".join([head, *(f"  {name:<10}{line}" for name, line in lines.items())])


def _xla(trained_on: Devices, with_xla: bool) -> str:
    if trained_on.backend == "jax":
        return "JAX compiles every step by it, once for each shape"
    if with_xla:
        return "a GPU gets batches of few shapes"
    if trained_on.strategy is Strategy.TPU:
        return "a TPU computes nothing else"
    if trained_on.strategy is Strategy.MIRRORED:
        return "it cannot compile what Keras makes of the step of several devices"
    return "only on a GPU with train.num_shapes and without accumulation"


def _shapes(config: ExperimentConfig, widths: Sequence[int], *, compiled_for: bool) -> str:
    if not config.train.num_shapes:
        return "each batch is as long as its longest text: nothing is compiled for a length"
    lengths = ", ".join(str(width) for width in sorted(set(widths)))
    each = ", each compiled for" if compiled_for else ""
    return f"batches of {lengths} tokens: at most train.num_shapes={config.train.num_shapes}{each}"

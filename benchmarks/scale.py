"""What one device, eight and a pod take for IMDB and for a billion tokens, by a model that is stated here.

python benchmarks/scale.py

A step takes, on each of n devices that share its batch,

    operations of its rows / (peak rate * share reached)
    + weights and slots read and written once / memory's speed
    + gradients exchanged / speed between devices          (n > 1)

The first is `step_flops` of the largest part of the batch; AdamW reads and writes seven float32 numbers a weight; in a
ring, each device sends 2 (n - 1) / n float32 numbers a weight (`memory.exchanged_bytes`), and nothing of it is hidden
behind the backward pass here, which is the worst case. Compilation, validation and reading texts are left out.

What makers state of their chips is a maker's figure, and the share of it that is reached there an assumption: no such
device was at hand. What processors of ours reach was measured (results.md).
"""

import dataclasses

import numpy as np
from corpora import imdb_lengths

from tf_finetune.bert.architecture import BertArchitecture
from tf_finetune.bert.flops import step_flops
from tf_finetune.bert.memory import FLOAT32, exchanged_bytes, num_weights
from tf_finetune.data.order import training_order

BERT_BASE = BertArchitecture(
    vocab_size=30522, hidden_size=768, num_hidden_layers=12, num_attention_heads=12, intermediate_size=3072
)
WEIGHTS = num_weights(BERT_BASE)
MAX_LENGTH, EPOCHS, IMDB_TEXTS, BILLION = 512, 3, 25_000, 1e9
# Read and written by AdamW: the gradient; the weight and two moments, twice.
NUMBERS_A_WEIGHT = 7


@dataclasses.dataclass(frozen=True)
class Chip:
    """Operations and bytes a second of one device.

    Attributes:
        rate: bfloat16 operations in matrix products.
        share: of the rate that a step reaches.
        memory: bytes that its memory reads or writes.
        link: bytes that it sends to others.
        most: how many are linked so.
        source: of the figures.
    """

    name: str
    rate: float
    share: float
    memory: float
    link: float
    most: int
    source: str


CHIPS = {
    "v5e": Chip("TPU v5e", 197e12, 0.4, 819e9, 50e9, 256, "Google Cloud's page of v5e; one of its four links"),
    "h100": Chip("H100 SXM", 989e12, 0.4, 3.35e12, 450e9, 8, "NVIDIA's data sheet; NVLink, one direction"),
}


def seconds_a_step(chip: Chip, devices: int, rows: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """Of batches of these rows and tokens a row, each shared by so many devices."""
    operations = step_flops(BERT_BASE, batch_size=-(-rows // devices), length=widths)
    computed = operations / (chip.rate * chip.share)
    updated = NUMBERS_A_WEIGHT * WEIGHTS * FLOAT32 / chip.memory
    return computed + updated + exchanged_bytes(WEIGHTS, devices) / chip.link


def main() -> None:
    lengths = np.minimum(imdb_lengths(IMDB_TEXTS), MAX_LENGTH)
    whole, of_eight = (size / 1e6 for size in (WEIGHTS * FLOAT32, exchanged_bytes(WEIGHTS, 8)))
    print(f"a step's gradients: {whole:.0f} MB; each of 8 devices sends {of_eight:.0f} MB")
    for chip in CHIPS.values():
        print(f"\n{chip.name}: {chip.rate / 1e12:.0f} TFLOP/s, of which {chip.share:.0%} are assumed ({chip.source})")
        print("| devices | texts a batch | IMDB, 3 epochs | a billion tokens | sent in | efficiency |")
        print("|---|---|---|---|---|---|")
        for devices, batch_size in ((1, 32), (8, 32), (8, 256), (256, 256), (256, 8192)):
            if devices <= chip.most:
                print(_row(chip, devices, batch_size, lengths))


def _row(chip: Chip, devices: int, batch_size: int, lengths: np.ndarray) -> str:
    order = training_order(lengths, batch_size=batch_size, seed=0, epoch=0)
    steps = seconds_a_step(chip, devices, order.rows, order.widths)
    alone = seconds_a_step(chip, 1, order.rows, order.widths)
    epoch, exchanged = steps.sum(), len(order) * exchanged_bytes(WEIGHTS, devices) / chip.link
    billion = epoch * BILLION / lengths.sum()
    times, efficiency = f"{_time(EPOCHS * epoch)} | {_time(billion)}", alone.sum() / epoch / devices
    return f"| {devices} | {batch_size} | {times} | {exchanged / epoch:.0%} of the time | {efficiency:.0%} |"


def _time(seconds: float) -> str:
    unit, size = next(
        (unit, size) for unit, size in (("h", 3600), ("min", 60), ("s", 1)) if seconds >= size or size == 1
    )
    return f"{seconds / size:.2g} {unit}"


if __name__ == "__main__":
    main()

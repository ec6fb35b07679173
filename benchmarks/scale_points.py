"""Steps of one process and of two on JAX, each on a core of its own, against the model of scale.py.

python benchmarks/scale_points.py

MiniLM's shapes, batches of texts padded to 64 tokens. A step of one process with 16 texts and with 32 says what a text
costs and what a step costs beside its texts; a step of two with 32 texts says what the exchange of gradients over
loopback takes. From these three the model tells others, which are then measured.
"""

import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from tf_finetune import process_environment

FLAGS = (
    "--config=reviews_minilm",
    "--config.runtime.backend=jax",
    "--config.runtime.precision=float32",
    "--config.data.max_length=64",
    "--config.train.num_shapes=1",
    "--config.train.epochs=1",
    "--config.train.log_every_steps=1",
)
STEPS, LEFT_OUT = 24, 4  # the first ones are compiled and warm things up


def main() -> None:
    one = {size: seconds_a_step(1, size) for size in (16, 32, 64)}
    two = {size: seconds_a_step(2, size) for size in (32, 64, 128)}
    text = (one[32] - one[16]) / 16
    beside = one[32] - 32 * text
    exchange = two[32] - one[16]
    costs = {"a text": text, "a step beside its texts": beside, "an exchange": exchange}
    print(", ".join(f"{what} {1e3 * seconds:.1f} ms" for what, seconds in costs.items()))
    print("| processes | texts a batch | ms a step, told | measured | measured / told |")
    print("|---|---|---|---|---|")
    for count, size, measured in ((1, 64, one[64]), (2, 64, two[64]), (2, 128, two[128])):
        told = beside + size / count * text + (exchange if count > 1 else 0)
        print(f"| {count} | {size} | {1e3 * told:.0f} | {1e3 * measured:.0f} | {measured / told:.2f} |")


def seconds_a_step(count: int, batch_size: int) -> float:
    """The median over the steps of one epoch."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with tempfile.TemporaryDirectory() as folder:
        flags = [f"--config.train.batch_size={batch_size}", f"--config.data.max_examples={STEPS * batch_size}"]
        command = [sys.executable, "-m", "tf_finetune", "train", f"--workdir={folder}/run", *FLAGS, *flags]
        running = []
        for index in range(count):
            place = (
                dict(zip(process_environment.VARIABLES, (address, str(count), str(index)), strict=True))
                if count > 1
                else {}
            )
            pinned = ["taskset", "--cpu-list", str(index), *command]
            running.append(subprocess.Popen(pinned, stdout=subprocess.DEVNULL, env=os.environ | place))
        if any([process.wait() for process in running]):
            raise SystemExit("a process failed")
        lines = (Path(folder) / "run" / "metrics.jsonl").read_text().splitlines()
    records = [record for record in map(json.loads, lines) if record["split"] == "train"]
    speeds = [record["timing"]["examples_per_second"] for record in records[LEFT_OUT:]]
    print(f"{count} process(es), {batch_size} texts: {batch_size / statistics.median(speeds):.3f} s a step", flush=True)
    return batch_size / statistics.median(speeds)


if __name__ == "__main__":
    main()

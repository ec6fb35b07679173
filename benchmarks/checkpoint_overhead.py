"""What keeping a checkpoint costs a training run.

python benchmarks/checkpoint_overhead.py [FLAG OF train ...]

Trains the demo's model on the packaged reviews for three epochs, with a checkpoint at the end of each, and times every
save: arrays off the model, files, checksums, the wait for the disk, the removal of older ones.
"""

import sys
import tempfile
import time

from tf_finetune import cli
from tf_finetune.commands.training_loop import TrainingLoop


def main() -> None:
    saves, in_all = [], []
    timed(TrainingLoop, "_save", saves)
    timed(TrainingLoop, "train", in_all)
    with tempfile.TemporaryDirectory() as folder:
        flags = sys.argv[1:] or ["--config=reviews_minilm"]
        if status := cli.main(["tf-finetune", "train", f"--workdir={folder}/run", *flags]):
            sys.exit(status)
    saving, rest = sum(saves), sum(in_all) - sum(saves)
    print(f"saves: {', '.join(f'{one:.2f}' for one in saves)} s; training and validation {rest:.1f} s")
    print(f"overhead {saving / rest:.2%}")


def timed(owner: type, name: str, seconds: list[float]) -> None:
    """Has every call of a method add to `seconds` how long it took."""
    method = getattr(owner, name)

    def called(*args):
        began = time.perf_counter()
        try:
            return method(*args)
        finally:
            seconds.append(time.perf_counter() - began)

    setattr(owner, name, called)


if __name__ == "__main__":
    main()

"""Ways an export can be damaged, each of which `verify` has to notice.

python tests/sabotage.py EXPORT    (a version, such as runs/demo/export/1; asks the command line of a copy for each way)
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tensorflow.core.protobuf import saved_model_pb2

from tf_finetune.workdir import MANIFEST, read_manifest, write_manifest

# An operation that no TensorFlow Serving has, one with Python, one that reads files, one of XLA.
OPERATIONS = ("NoSuchOperation", "EagerPyFunc", "ReadFile", "XlaLaunch")


def shard(folder: Path) -> Path:
    return next(folder.glob("variables/variables.data-*"))


def flip(path: Path, place: float = 0.5) -> None:
    """Alters one byte."""
    content = bytearray(path.read_bytes())
    content[int(len(content) * place)] ^= 0xFF
    path.write_bytes(content)


def hide(folder: Path) -> None:
    """Writes the checksums as if the export had been written as it is now."""
    facts = {name: value for name, value in read_manifest(folder).items() if name != "files"}
    (folder / MANIFEST).unlink()
    write_manifest(folder, **facts)


def edit(folder: Path, change: Callable) -> None:
    """Changes the graph, and hides it."""
    path = folder / "saved_model.pb"
    model = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    change(model.meta_graphs[0])
    path.write_bytes(model.SerializeToString())
    hide(folder)


def flip_and_hide(folder: Path) -> None:
    flip(shard(folder))
    hide(folder)


def add_operation(folder: Path, operation: str) -> None:
    edit(folder, lambda graph: graph.graph_def.library.function[0].node_def.add(name="sabotage", op=operation))


def swap_labels(folder: Path) -> None:
    """Each label takes the place of the next: whichever is answered, it is another one now."""
    names = [name.encode() for name in read_manifest(folder)["task"]["label_names"]]

    def swap(graph):
        for function in graph.graph_def.library.function:
            for node in function.node_def:
                values = node.attr["value"].tensor.string_val if node.op == "Const" else ()
                if list(values) == names:
                    values[:] = names[1:] + names[:1]

    edit(folder, swap)


def freeze(folder: Path, signature: str, key: str, axis: int) -> None:
    """One dimension of an input is 8."""

    def change(graph):
        graph.signature_def[signature].inputs[key].tensor_shape.dim[axis].size = 8

    edit(folder, change)


SABOTAGES: dict[str, Callable[[Path], None]] = {
    "a flipped byte in a shard": lambda folder: flip(shard(folder)),
    "a flipped byte that the manifest hides": flip_and_hide,
    "a missing shard": lambda folder: shard(folder).unlink(),
    "an operation outside of the list": lambda folder: add_operation(folder, "ReadFile"),
    "swapped label names": swap_labels,
    "a frozen batch": lambda folder: freeze(folder, "serving_default", "text", 0),
    "a frozen length": lambda folder: freeze(folder, "tokens", "input_ids", 1),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("export", type=Path)
    export = parser.parse_args().export
    for name, damage in SABOTAGES.items():
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(shutil.copytree(export, Path(folder) / "1"))
            damage(copy)
            command = [sys.executable, "-m", "tf_finetune", "verify", f"--saved_model={copy}"]
            result = subprocess.run(command, capture_output=True, text=True)
        print(f"{name}: status {result.returncode}\n  {result.stderr.strip().splitlines()[-1]}", flush=True)


if __name__ == "__main__":
    main()

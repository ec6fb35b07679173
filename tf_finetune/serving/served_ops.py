"""Whether every operation of an export is one that TensorFlow Serving 2.12 to 2.20 has.

`served_ops.txt` lists them; `benchmarks/served_ops.py` makes it of TensorFlow's own registries.
"""

from pathlib import Path

from tf_finetune.serving.answers import Check
from tf_finetune.serving.session import meta_graph

LIST = Path(__file__).with_suffix(".txt")
# These write and read the variables' own files, inside of the saver's two functions alone.
SAVER_OPS = {"SaveV2", "RestoreV2", "ShardedFilename", "MergeV2Checkpoints"}
SAVER_FUNCTIONS = ("__inference__traced_save", "__inference__traced_restore")


def check(saved_model: Path) -> Check:
    """Looks at the graph and at every function of its library."""
    graph = meta_graph(saved_model).graph_def
    functions = {function.signature.name: function.node_def for function in graph.library.function}
    known = set(LIST.read_text(encoding="utf-8").split()) | set(functions)
    bodies, seen = {"the graph": graph.node, **functions}, set()
    promise = "operations are those of TensorFlow Serving 2.12 to 2.20"
    for name, nodes in bodies.items():
        here = known | SAVER_OPS if name.startswith(SAVER_FUNCTIONS) else known
        for node in nodes:
            if node.op not in here:
                return Check(promise, False, f"{node.op}, as {node.name} in {name}, is none of them")
            seen.add(node.op)
    return Check(promise, True, f"{len(seen - set(functions))} kinds in {len(bodies)} functions")

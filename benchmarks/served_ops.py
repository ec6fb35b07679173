"""Makes tf_finetune/serving/served_ops.txt: the operations that TensorFlow Serving 2.12 and every later one has.

python benchmarks/served_ops.py PYTHON_OF_2_12 PYTHON_OF_A_LATER_ONE ...

Each is the interpreter of an environment with tensorflow-cpu (or tensorflow) and tensorflow-text, whose registry is
read through the C API. The server links TensorFlow's operations and TensorFlow Text's. What reads or writes files,
calls Python, or belongs to compilers, devices and processes that a server has not is left out.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import tf_finetune

LIST = Path(tf_finetune.__file__).parent / "serving" / "served_ops.txt"
LEFT_OUT = re.compile(
    "Xla|PyFunc|Python|File|Reader|Dataset|Iterator|Record|Save|Restore|Checkpoint|Sharded|Print|Debug|Summary|TPU|Tpu"
    "|Collective|Nccl|Cuda|Cudnn|RemoteCall|^_|Send$|Recv$|Queue|Barrier|Stage|Mutex|Experimental|Test|Deserialize|Boosted"
)
READ = """
import ctypes, glob, importlib.util, json, os, sys
roots = {name: os.path.dirname(importlib.util.find_spec(name).origin) for name in ("tensorflow", "tensorflow_text")}
def found(pattern):
    return sorted(glob.glob(pattern))
framework = found(roots["tensorflow"] + "/libtensorflow_framework.so*")[:1]
cc = found(roots["tensorflow"] + "/libtensorflow_cc.so*")[:1]
tf = [ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL) for path in framework + cc][-1]
pointer = ctypes.c_void_p
for name, returns, takes in (("TF_NewStatus", pointer, []), ("TF_LoadLibrary", pointer, [pointer, pointer]),
                             ("TF_GetCode", ctypes.c_int, [pointer]), ("TF_GetAllOpList", pointer, [])):
    getattr(tf, name).restype, getattr(tf, name).argtypes = returns, takes
status = tf.TF_NewStatus()
for library in found(roots["tensorflow_text"] + "/python/*/_*.so"):
    tf.TF_LoadLibrary(library.encode(), status)
    assert tf.TF_GetCode(status) == 0, library
class Buffer(ctypes.Structure):
    _fields_ = [("data", pointer), ("length", ctypes.c_size_t)]
buffer = Buffer.from_address(tf.TF_GetAllOpList())
sys.stdout.buffer.write(ctypes.string_at(buffer.data, buffer.length))
"""


def registered(python: str) -> set[str]:
    """The names of the operations that an environment's TensorFlow knows."""
    from tensorflow.core.framework import op_def_pb2

    listed = subprocess.run([python, "-I", "-c", READ], capture_output=True, check=True).stdout
    return {op.name for op in op_def_pb2.OpList.FromString(listed).op}


def main() -> None:
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    in_all = set.intersection(*map(registered, sys.argv[1:]))
    names = sorted(name for name in in_all if not LEFT_OUT.search(name))
    LIST.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    print(json.dumps({"in all": len(in_all), "kept": len(names)}))


if __name__ == "__main__":
    main()

"""Ask an exported SavedModel by signature, in a new process: TensorFlow's C++ code alone, or Python TensorFlow."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tf_finetune.errors import InputError

C_API, PYTHON = Path(__file__).with_name("c_api.py"), Path(__file__).with_name("python_process.py")

Answer = dict[str, np.ndarray | list[str]]


class SignatureTensor(NamedTuple):
    """One input or output of a signature; a dimension that may vary is None."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]


class Signature(NamedTuple):
    """What a signature takes and gives, by the keys a client uses."""

    inputs: dict[str, SignatureTensor]
    outputs: dict[str, SignatureTensor]


def meta_graph(saved_model: Path):
    """The MetaGraphDef of a SavedModel, which is not loaded; InputError if it is none."""
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf import saved_model_pb2

    try:
        return saved_model_pb2.SavedModel.FromString((saved_model / "saved_model.pb").read_bytes()).meta_graphs[0]
    except (OSError, DecodeError, IndexError) as failure:  # an empty file parses, and holds no graph
        expected = "a folder with a whole saved_model.pb"
        raise InputError("not a SavedModel", where=saved_model, expected=expected, got=failure) from None


def signature_tensors(saved_model: Path) -> dict[str, Signature]:
    """The signatures of a SavedModel, by name; InputError if it is none."""
    from tensorflow import dtypes

    def tensor(info) -> SignatureTensor:
        shape = tuple(dim.size if dim.size >= 0 else None for dim in info.tensor_shape.dim)
        try:
            return SignatureTensor(info.name, dtypes.as_dtype(info.dtype).name, shape)
        except TypeError as unknown:
            raise InputError(
                "not a signature", where=saved_model, expected="a type of TensorFlow", got=unknown
            ) from None

    return {
        name: Signature(
            inputs={key: tensor(info) for key, info in signature.inputs.items()},
            outputs={key: tensor(info) for key, info in signature.outputs.items()},
        )
        for name, signature in meta_graph(saved_model).signature_def.items()
        if name != "__saved_model_init_op"  # the loader runs it, no client does
    }


def run_in_c_api(
    saved_model: Path,
    requests: list[tuple[str, dict[str, list]]],
    timeout: float = 120.0,
    *,
    of: dict[str, list[str]] | None = None,
) -> list[Answer]:
    """Answer requests of (signature name, inputs by key) with outputs by key: strings as lists, the rest as arrays.

    Args:
        saved_model: the folder of one exported version.
        requests: every input a nested list or an array; a string may be str or bytes.
        timeout: seconds for the whole process, which starts in about one.
        of: the `libraries` of another TensorFlow; None means this environment's.

    Raises:
        InputError: not a SavedModel, or a request that does not fit its signature.
        RuntimeError: it did not load or answer; the message is TensorFlow's.
    """
    signatures = signature_tensors(saved_model)
    runs = [_run(signatures, name, inputs) for name, inputs in requests]
    reply = _ask(C_API, {**(of or libraries()), "saved_model": str(saved_model), "runs": runs}, timeout)
    return _answers(reply, [signatures[name] for name, _ in requests])


def run_in_python(
    saved_model: Path, requests: list[tuple[str, dict[str, list]]], timeout: float = 120.0
) -> tuple[list[Answer], str]:
    """The same through `tf.saved_model.load`, in a process that imports TensorFlow and TensorFlow Text alone.

    Returns:
        The answers, and what `saved_model_cli scan` says there.

    Raises:
        InputError, RuntimeError: as `run_in_c_api`.
    """
    signatures = signature_tensors(saved_model)
    runs = []
    for name, inputs in requests:
        _check_inputs(signatures, name, inputs)
        fed = {key: _feed(tensor, inputs[key]) for key, tensor in signatures[name].inputs.items()}
        runs.append({"signature": name, "inputs": fed})
    reply = _ask(PYTHON, {"saved_model": str(saved_model), "runs": runs}, timeout)
    return _answers(reply, [signatures[name] for name, _ in requests]), reply["scan"]


def _answers(reply: dict, signatures: list[Signature]) -> list[Answer]:
    for signature, answer, shapes in zip(signatures, reply["answers"], reply["shapes"], strict=True):
        for key, tensor in signature.outputs.items():
            if tensor.dtype != "string":
                answer[key] = np.array(answer[key], tensor.dtype).reshape(shapes[key])
    return reply["answers"]


def libraries() -> dict[str, list[str]]:
    """TensorFlow's shared libraries, and under "op_libraries" those of TensorFlow Text's operations."""
    tensorflow, text = (importlib.util.find_spec(name) for name in ("tensorflow", "tensorflow_text"))
    folder = Path(tensorflow.origin).parent
    # All op libraries of tensorflow_text: naming the one or two a graph needs would save 0.2 seconds and rot.
    ops = _found(Path(text.origin).parent, "python/*/_*") if text else []
    cores = [_found(folder, f"libtensorflow_{part}.*")[:1] for part in ("framework", "cc")]
    return {"libraries": sum(cores, []), "op_libraries": ops}


def _found(folder: Path, stem: str) -> list[str]:
    """Shared libraries as Linux (.so, .so.2) and macOS (.dylib) name them."""
    return sorted(str(path) for path in folder.glob(stem) if {".so", ".dylib"} & set(path.suffixes))


def _run(signatures: dict[str, Signature], name: str, inputs: dict[str, list]) -> dict:
    _check_inputs(signatures, name, inputs)
    expected, outputs = signatures[name]
    return {
        "inputs": {tensor.name: _feed(tensor, inputs[key]) for key, tensor in expected.items()},
        "outputs": {key: tensor.name for key, tensor in outputs.items()},
    }


def _check_inputs(signatures: dict[str, Signature], name: str, inputs: dict[str, list]) -> None:
    if name not in signatures:
        raise InputError("no such signature", expected=" or ".join(sorted(signatures)), got=name)
    if inputs.keys() != signatures[name].inputs.keys():
        wanted, given = (", ".join(sorted(one)) or "none" for one in (signatures[name].inputs, inputs))
        raise InputError("wrong inputs", where=f"a request to {name}", expected=wanted, got=given)


def _feed(tensor: SignatureTensor, value: list) -> dict:
    try:
        array = np.asarray(value, dtype=object if tensor.dtype == "string" else tensor.dtype)
    except (TypeError, ValueError) as error:
        raise InputError("wrong input", where=tensor.name, expected=tensor.dtype, got=error) from None
    if array.shape == (0,):  # an empty list says nothing about the other dimensions
        array = array.reshape([0, *(size or 0 for size in tensor.shape[1:])])
    items = array.reshape(-1).tolist()
    if tensor.dtype == "string":
        items = [item.decode("utf-8", "surrogateescape") if isinstance(item, bytes) else item for item in items]
    return {"dtype": tensor.dtype, "shape": array.shape, "value": items}


def _ask(script: Path, request: dict, timeout: float) -> dict:
    # The CPU answers: the accelerator's memory is the parent's already, and a server may have none.
    # "-P": modules that lie beside the script are not for it to import.
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    command, message = [sys.executable, "-P", str(script)], json.dumps(request).encode()
    try:
        child = subprocess.run(
            command, input=message, capture_output=True, env=environment, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"no answer from the SavedModel in {timeout:g} seconds") from None
    if child.returncode == 0:
        return json.loads(child.stdout)
    # TensorFlow logs after the error too; a crash leaves no error line, only the log's last words.
    lines = child.stderr.decode("utf-8", "replace").splitlines()
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    if not errors:
        raise RuntimeError(f"exit status {child.returncode}: {(lines or ['no message'])[-1]}")
    raise RuntimeError(errors[-1])

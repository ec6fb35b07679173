"""Answers from a SavedModel through TensorFlow's C API, in a process without Python TensorFlow or Keras.

An export can answer in Python TensorFlow and be dead in a server, because the Python objects that made it fill in
what its files lack. TensorFlow Serving loads with the C++ code behind this API: what answers here stands alone.

Run by its path, with the standard library and numpy only: `python -I c_api.py < request.json > answer.json`

Request; an input may give its "shape" too (lists cannot tell (0, 128) from (0,)), and then a flat "value":
    {"libraries": [libtensorflow_framework, libtensorflow_cc], "op_libraries": [...], "saved_model": folder,
     "runs": [{"inputs": {"serving_default_text:0": {"dtype": "string", "value": ["good"]}},
               "outputs": {"label": "StatefulPartitionedCall:0"}}]}
Answer, one entry a run; a byte that is not UTF-8 travels as Python's surrogateescape, both ways:
    {"answers": [{"label": ["positive"]}], "shapes": [{"label": [1]}]}
A failure exits with status 1 and ends stderr with one line `error: ...`.
"""

import contextlib
import ctypes
import json
import sys
from collections.abc import Callable, Iterable, Iterator

import numpy as np

DATA_TYPES = {"float32": 1, "int32": 3, "string": 7, "int64": 9}  # TF_DataType
STRING_BYTES = 24  # sizeof(TF_TString), the same on every platform
FORBIDDEN_MODULES = ("tensorflow", "keras", "tf_finetune")


class Endpoint(ctypes.Structure):
    """TF_Output: one output of one operation of the graph."""

    _fields_ = [("operation", ctypes.c_void_p), ("index", ctypes.c_int)]


def open_c_api(libraries: list[str]) -> ctypes.CDLL:
    """Load TensorFlow's libraries, each after those it needs; the last one reaches the functions of all."""
    pointer, number, size = ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t
    functions = {  # name: (what it returns, *what it takes), from tensorflow/c/c_api.h, tf_tensor.h and tf_tstring.h
        "TF_NewStatus": (pointer,),
        "TF_GetCode": (number, pointer),
        "TF_Message": (ctypes.c_char_p, pointer),
        "TF_DeleteStatus": (None, pointer),
        "TF_LoadLibrary": (pointer, pointer, pointer),
        "TF_DeleteLibraryHandle": (None, pointer),
        "TF_NewGraph": (pointer,),
        "TF_DeleteGraph": (None, pointer),
        "TF_GraphOperationByName": (pointer, pointer, pointer),
        "TF_NewSessionOptions": (pointer,),
        "TF_DeleteSessionOptions": (None, pointer),
        "TF_LoadSessionFromSavedModel": (pointer, *[pointer] * 4, number, *[pointer] * 3),
        "TF_DeleteSession": (None, pointer, pointer),
        "TF_SessionRun": (None, *[pointer] * 4, number, *[pointer] * 2, number, pointer, number, *[pointer] * 2),
        "TF_AllocateTensor": (pointer, number, pointer, number, size),
        "TF_DeleteTensor": (None, pointer),
        "TF_TensorData": (pointer, pointer),
        "TF_TensorType": (number, pointer),
        "TF_TensorByteSize": (size, pointer),
        "TF_NumDims": (number, pointer),
        "TF_Dim": (ctypes.c_int64, pointer, number),
        "TF_StringInit": (None, pointer),
        "TF_StringCopy": (None, pointer, pointer, size),
        "TF_StringGetDataPointer": (pointer, pointer),
        "TF_StringGetSize": (size, pointer),
        "TF_StringDealloc": (None, pointer),
    }
    tf = [ctypes.CDLL(library, mode=ctypes.RTLD_GLOBAL) for library in libraries][-1]
    for name, (returns, *takes) in functions.items():
        function = getattr(tf, name)
        function.restype, function.argtypes = returns, takes
    return tf


def checked(tf: ctypes.CDLL, function: Callable, *arguments):
    """Call a function whose last argument is a TF_Status, and raise RuntimeError with its message if it failed."""
    status = tf.TF_NewStatus()
    try:
        result = function(*arguments, status)
        if tf.TF_GetCode(status) != 0:
            raise RuntimeError(tf.TF_Message(status).decode("utf-8", "replace"))
        return result
    finally:
        tf.TF_DeleteStatus(status)


@contextlib.contextmanager
def loaded(tf: ctypes.CDLL, saved_model: str) -> Iterator[tuple[int, int]]:
    """The graph and the session of a SavedModel, its variables restored and its initializers run."""
    graph, options = tf.TF_NewGraph(), tf.TF_NewSessionOptions()
    tags = (ctypes.c_char_p * 1)(b"serve")
    folder = saved_model.encode("utf-8", "surrogateescape")
    try:
        session = checked(tf, tf.TF_LoadSessionFromSavedModel, options, None, folder, tags, 1, graph, None)
        try:
            yield graph, session
        finally:
            checked(tf, tf.TF_DeleteSession, session)
    finally:
        tf.TF_DeleteSessionOptions(options)
        tf.TF_DeleteGraph(graph)


def find_endpoints(tf: ctypes.CDLL, graph: int, names: Iterable[str]) -> ctypes.Array:
    """The TF_Output array for names such as "StatefulPartitionedCall:0"."""
    endpoints = []
    for name in names:
        operation, _, index = name.rpartition(":")
        found = tf.TF_GraphOperationByName(graph, operation.encode())
        if not found:
            raise ValueError(f"the graph has no tensor {name!r}")
        endpoints.append(Endpoint(found, int(index)))
    return (Endpoint * len(endpoints))(*endpoints)


def new_tensor(tf: ctypes.CDLL, dtype: str, value: list, shape: list[int] | None = None) -> int:
    """A TF_Tensor with a copy of `value`; free it with `delete_tensor`."""
    array = np.asarray(value, dtype=object if dtype == "string" else dtype, order="C")
    array = array if shape is None else array.reshape(shape)
    strings = [text.encode("utf-8", "surrogateescape") for text in array.flat] if dtype == "string" else []
    byte_size = len(strings) * STRING_BYTES if dtype == "string" else array.nbytes
    dimensions = (ctypes.c_int64 * array.ndim)(*array.shape)
    tensor = tf.TF_AllocateTensor(DATA_TYPES[dtype], dimensions, array.ndim, byte_size)
    if dtype != "string":
        ctypes.memmove(tf.TF_TensorData(tensor), array.ctypes.data, byte_size)
        return tensor
    for string, content in zip(string_pointers(tf, tensor), strings, strict=True):
        tf.TF_StringInit(string)
        tf.TF_StringCopy(string, content, len(content))
    return tensor


def string_pointers(tf: ctypes.CDLL, tensor: int) -> range:
    """Where the strings of a tensor of strings lie in memory."""
    start = tf.TF_TensorData(tensor) or 0  # a tensor without elements may have no memory
    return range(start, start + tf.TF_TensorByteSize(tensor), STRING_BYTES)


def delete_tensor(tf: ctypes.CDLL, tensor: int) -> None:
    """Free a tensor of `new_tensor`."""
    if tf.TF_TensorType(tensor) == DATA_TYPES["string"]:
        # TensorFlow 2.21 would free the strings itself; the header promises it of no version, and twice is harmless.
        for string in string_pointers(tf, tensor):
            tf.TF_StringDealloc(string)
    tf.TF_DeleteTensor(tensor)


def read_tensor(tf: ctypes.CDLL, tensor: int) -> np.ndarray:
    """A copy of a TF_Tensor; strings come as an array of Python strings."""
    shape = [tf.TF_Dim(tensor, axis) for axis in range(tf.TF_NumDims(tensor))]
    dtype = {number: name for name, number in DATA_TYPES.items()}.get(tf.TF_TensorType(tensor))
    if dtype is None:
        raise ValueError(f"an output must be one of {', '.join(DATA_TYPES)}, got type {tf.TF_TensorType(tensor)}")
    if dtype != "string":
        content = ctypes.string_at(tf.TF_TensorData(tensor), tf.TF_TensorByteSize(tensor))
        return np.frombuffer(content, dtype=dtype).reshape(shape)
    strings = []
    for string in string_pointers(tf, tensor):
        content = ctypes.string_at(tf.TF_StringGetDataPointer(string), tf.TF_StringGetSize(string))
        strings.append(content.decode("utf-8", "surrogateescape"))
    return np.array(strings, dtype=object).reshape(shape)


def run(tf: ctypes.CDLL, graph: int, session: int, inputs: dict[str, dict], outputs: dict[str, str]) -> dict:
    """Feed `inputs` by tensor name and fetch `outputs`, a tensor name for every key of the answer."""
    sources, targets = find_endpoints(tf, graph, inputs), find_endpoints(tf, graph, outputs.values())
    feeds, fetches = (ctypes.c_void_p * len(inputs))(), (ctypes.c_void_p * len(outputs))()
    try:
        for index, tensor in enumerate(inputs.values()):
            feeds[index] = new_tensor(tf, **tensor)
        fed, fetched = (sources, feeds, len(feeds)), (targets, fetches, len(fetches))
        checked(tf, tf.TF_SessionRun, session, None, *fed, *fetched, None, 0, None)
        return {key: read_tensor(tf, tensor) for key, tensor in zip(outputs, fetches, strict=True)}
    finally:
        # An output may share the memory of an input, so the inputs go only after the outputs are copied.
        for tensor in filter(None, fetches):
            tf.TF_DeleteTensor(tensor)
        for tensor in filter(None, feeds):
            delete_tensor(tf, tensor)


def answer(request: dict) -> dict:
    """Load what the request names, run what it asks, and make sure that no Python TensorFlow helped."""
    tf = open_c_api(request["libraries"])
    for library in request["op_libraries"]:
        tf.TF_DeleteLibraryHandle(checked(tf, tf.TF_LoadLibrary, library.encode("utf-8", "surrogateescape")))
    with loaded(tf, request["saved_model"]) as (graph, session):
        answers = [run(tf, graph, session, one["inputs"], one["outputs"]) for one in request["runs"]]
    helpers = [name for name in FORBIDDEN_MODULES if name in sys.modules]
    if helpers:
        raise RuntimeError(f"this process proves nothing: it imported {', '.join(helpers)}")
    return {
        "answers": [{key: array.tolist() for key, array in one.items()} for one in answers],
        "shapes": [{key: array.shape for key, array in one.items()} for one in answers],
    }


def main() -> None:
    try:
        print(json.dumps(answer(json.load(sys.stdin.buffer))))
    except (OSError, OverflowError, RuntimeError, ValueError) as failure:
        sys.exit(f"error: {' '.join(str(failure).split())}")


if __name__ == "__main__":
    main()

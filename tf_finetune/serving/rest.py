"""The JSON that TensorFlow Serving's REST interface reads and writes, in both of its forms.

Row: `{"instances": [...]}` -> `{"predictions": [...]}`, an example an entry. Columnar: `{"inputs": ...}` ->
`{"outputs": ...}`, all examples of a tensor together. What has one input or output only goes without its name.
As in the server, bytes that are no UTF-8 travel as `{"b64": ...}`, and the outputs of a row form share their batch.

https://www.tensorflow.org/tfx/serving/api_rest
"""

import base64
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

DEFAULT = "serving_default"  # the signature of a request that names none


def request_body(inputs: Mapping[str, Any], *, signature: str = DEFAULT, row: bool) -> str:
    """The body of a POST for inputs by key."""
    named = {} if signature == DEFAULT else {"signature_name": signature}
    columns = {name: np.asarray(value, object).tolist() for name, value in inputs.items()}
    content = _rows(columns) if row else _unnamed(columns)
    return json.dumps({**named, "instances" if row else "inputs": content}, ensure_ascii=False)


def inputs_of(body: str, keys: list[str]) -> tuple[str, dict[str, list]]:
    """What the server makes of a body: the signature's name and the inputs by key.

    Raises:
        ValueError: not a request for these inputs; the message says why.
    """
    request = json.loads(body)
    if not isinstance(request, dict) or ("instances" in request) == ("inputs" in request):
        raise ValueError("a request has either 'instances' or 'inputs'")
    row = "instances" in request
    content = request["instances" if row else "inputs"]
    if row:
        if not isinstance(content, list) or not content:
            raise ValueError("'instances' is a list with an entry an example")
        rows = [_named(entry, keys) for entry in content]
        if any(entry.keys() != rows[0].keys() for entry in rows):
            raise ValueError("all instances have the same inputs")
        inputs = {name: [entry[name] for entry in rows] for name in rows[0]}
    else:
        inputs = _named(content, keys)
    if inputs.keys() != set(keys):
        raise ValueError(f"expected the inputs {', '.join(sorted(keys))}, got {', '.join(sorted(inputs))}")
    return request.get("signature_name", DEFAULT), {name: _decoded(value) for name, value in inputs.items()}


def response_body(outputs: Mapping[str, Any], *, row: bool) -> str:
    """What the server answers with outputs by key: lists of strings, and arrays."""
    columns = {name: np.asarray(value).tolist() for name, value in outputs.items()}
    content = _rows(columns) if row else _unnamed(columns)
    return json.dumps({"predictions" if row else "outputs": content}, ensure_ascii=False)


def _rows(columns: dict[str, list]) -> list:
    if len({len(column) for column in columns.values()}) != 1:
        raise ValueError(f"the batches differ: {', '.join(f'{name} {len(c)}' for name, c in columns.items())}")
    return [_unnamed(dict(zip(columns, entry, strict=True))) for entry in zip(*columns.values(), strict=True)]


def _unnamed(values: dict[str, Any]) -> Any:
    encoded = {name: _encoded(value) for name, value in values.items()}
    return next(iter(encoded.values())) if len(encoded) == 1 else encoded


def _named(value: Any, keys: list[str]) -> dict[str, Any]:
    if isinstance(value, dict) and value.keys() != {"b64"}:
        return value
    if len(keys) != 1:
        raise ValueError(f"expected an object with {', '.join(sorted(keys))}")
    return {keys[0]: value}


def _encoded(value: Any) -> Any:
    if isinstance(value, list):
        return [_encoded(entry) for entry in value]
    if not isinstance(value, bytes):
        return value
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"b64": base64.b64encode(value).decode()}


def _decoded(value: Any) -> Any:
    if isinstance(value, list):
        return [_decoded(entry) for entry in value]
    return base64.b64decode(value["b64"]) if isinstance(value, dict) else value

"""Answers from a SavedModel in a new Python process that imports TensorFlow and TensorFlow Text and nothing else.

What a user without this package would write. Run by its path: `python -I python_process.py < request.json`

Request and answer are those of `c_api.py`, but for a run, which names its signature:
    {"saved_model": folder, "runs": [{"signature": "serving_default", "inputs": {"text": {"dtype": ..., "shape": ...,
     "value": [...]}}}]}
The answer has "scan" beside: what `saved_model_cli scan` prints.
"""

import contextlib
import io
import json
import sys

import numpy as np

FORBIDDEN_MODULES = ("tf_finetune", "tokenizers", "transformers")


def answer(request: dict) -> dict:
    import tensorflow as tf
    import tensorflow_text  # noqa: F401 - the graph needs its operations

    loaded = tf.saved_model.load(request["saved_model"])
    answers = [
        loaded.signatures[run["signature"]](**{key: tensor(tf, **given) for key, given in run["inputs"].items()})
        for run in request["runs"]
    ]
    helpers = [name for name in FORBIDDEN_MODULES if name in sys.modules]
    if helpers:
        raise RuntimeError(f"this process proves nothing: it imported {', '.join(helpers)}")
    return {
        "answers": [{key: plain(value.numpy()) for key, value in one.items()} for one in answers],
        "shapes": [{key: list(value.shape) for key, value in one.items()} for one in answers],
        "scan": scan(request["saved_model"]),
    }


def scan(saved_model: str) -> str:
    """What TensorFlow's own command says of the graph's operations; here, because to start it costs seconds."""
    from tensorflow.python.tools import saved_model_cli

    sys.argv = ["saved_model_cli", "scan", "--dir", saved_model]
    with contextlib.redirect_stdout(io.StringIO()) as said, contextlib.suppress(SystemExit):
        saved_model_cli.main()
    return said.getvalue().strip()


def tensor(tf, dtype: str, shape: list[int], value: list):
    if dtype == "string":
        value = [text.encode("utf-8", "surrogateescape") for text in value]
    return tf.reshape(tf.constant(value, dtype), shape)


def plain(array: np.ndarray) -> list:
    if array.dtype != object:
        return array.tolist()
    strings = [text.decode("utf-8", "surrogateescape") for text in array.reshape(-1)]
    return np.array(strings, dtype=object).reshape(array.shape).tolist()


def main() -> None:
    request = json.load(sys.stdin.buffer)
    try:
        print(json.dumps(answer(request)))
    except Exception as failure:  # whatever TensorFlow raises, the one line is all that the other side reads
        sys.exit(f"error: {' '.join(str(failure).split())}")


if __name__ == "__main__":
    main()

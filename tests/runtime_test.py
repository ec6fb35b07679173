"""What a run says, and in what models are built."""

import contextlib
import io
import sys

import keras
import pytest
import tensorflow as tf

from tf_finetune import runtime


def test_the_policy_ends_with_the_block():
    before = keras.config.dtype_policy().name
    with runtime.precision_policy("mixed_bfloat16"):
        assert keras.config.dtype_policy().name == "mixed_bfloat16"
    assert keras.config.dtype_policy().name == before


@pytest.mark.parametrize(("encoding", "printed"), [("ascii", "caf\\xe9"), ("latin-1", "café"), ("utf-8", "café")])
def test_words_of_the_data_are_printed_on_every_terminal(encoding, printed):
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, newline="\n")
    with contextlib.redirect_stdout(stream):
        runtime.say("café \x1b[2J\ud800")
    assert stream.buffer.getvalue().decode(encoding) == f"{printed} \\x1b[2J\\ud800\n"


def test_words_of_the_data_are_printed_where_no_encoding_is_known():
    with contextlib.redirect_stdout(io.StringIO()) as stream:
        runtime.say("café")
    assert stream.getvalue() == "café\n"


@pytest.mark.parametrize(("backend", "hidden"), [("jax", [([], "GPU")]), ("tensorflow", [])])
def test_tensorflow_leaves_the_gpus_to_jax(monkeypatch, backend, hidden):
    calls = []
    monkeypatch.setattr(tf.config, "set_visible_devices", lambda *what: calls.append(what))
    monkeypatch.setattr(keras.backend, "backend", lambda: backend)
    runtime.import_tensorflow_quietly()
    assert calls == hidden
    monkeypatch.delitem(sys.modules, "keras")  # it is imported after TensorFlow
    monkeypatch.setenv("KERAS_BACKEND", backend)
    runtime.import_tensorflow_quietly()
    assert calls == 2 * hidden

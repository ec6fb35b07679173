"""What a run says, and in what models are built."""

import contextlib
import io

import keras
import pytest

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

"""The C API road: the same answers as TensorFlow in this process, and one clear line when there are none."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tf_finetune.errors import InputError
from tf_finetune.serving import session

tf = pytest.importorskip("tensorflow")
tf_text = pytest.importorskip("tensorflow_text")

VOCABULARY = ["[UNK]", "good", "bad", "##ly", "é"]
LABELS = ["negative", "pösitive"]
TEXTS = ["good goodly", "é bad", ""]


class TinyClassifier(tf.Module):
    """Wordpieces -> a sum of two scores a piece -> the label and its probabilities."""

    def __init__(self):
        super().__init__()
        self.tokenizer = tf_text.FastWordpieceTokenizer(
            VOCABULARY, token_out_type=tf.int32, unknown_token="[UNK]", support_detokenization=False
        )
        self.scores = tf.Variable(np.random.default_rng(0).normal(size=(len(VOCABULARY), 2)).astype("float32"))

    def probabilities(self, ids):
        return tf.nn.softmax(tf.reduce_sum(tf.gather(self.scores, ids), axis=1))

    @tf.function
    def classify(self, text):
        probabilities = self.probabilities(self.tokenizer.tokenize(text))
        label = tf.gather(LABELS, tf.argmax(probabilities, axis=-1))
        return {"label": label, "probabilities": probabilities, "echo": text}

    @tf.function
    def tokens(self, input_ids):
        length = tf.reduce_sum(tf.ones_like(input_ids, tf.int64), axis=1)
        return {"probabilities": self.probabilities(input_ids), "length": length, "last": input_ids[:, -1:]}


@pytest.fixture(scope="module")
def model():
    return TinyClassifier()


@pytest.fixture(scope="module")
def saved_model(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("export") / "1"
    text = model.classify.get_concrete_function(tf.TensorSpec([None], tf.string, name="text"))
    tokens = model.tokens.get_concrete_function(tf.TensorSpec([None, None], tf.int32, name="input_ids"))
    tf.saved_model.save(model, str(folder), signatures={"serving_default": text, "tokens": tokens})
    return folder


@pytest.fixture
def broken(saved_model, tmp_path):
    """A copy of the SavedModel to damage."""
    return Path(shutil.copytree(saved_model, tmp_path / "1"))


def test_signatures_are_read_with_their_dtypes_and_shapes(saved_model):
    signatures = session.signature_tensors(saved_model)
    assert sorted(signatures) == ["serving_default", "tokens"]
    assert signatures["serving_default"].inputs == {"text": ("serving_default_text:0", "string", (None,))}
    assert signatures["tokens"].inputs["input_ids"][1:] == ("int32", (None, None))
    assert signatures["tokens"].outputs["probabilities"][1:] == ("float32", (None, 2))


def test_every_batch_size_gets_the_answers_of_tensorflow(model, saved_model):
    batches = [TEXTS[:1], TEXTS, []]
    answers = session.run_in_c_api(saved_model, [("serving_default", {"text": batch}) for batch in batches])
    for batch, answer in zip(batches, answers, strict=True):
        expected = model.classify(tf.constant(batch, tf.string, shape=[len(batch)]))
        assert answer["label"] == [label.decode() for label in expected["label"].numpy()]
        assert answer["echo"] == batch
        assert answer["probabilities"].shape == (len(batch), 2)
        assert answer["probabilities"].dtype == np.float32
        np.testing.assert_allclose(answer["probabilities"], expected["probabilities"], rtol=1e-6)
    assert {label for answer in answers for label in answer["label"]} == set(LABELS)  # or the test would prove little


def test_strings_arrive_byte_for_byte(saved_model):
    texts = ["naïve 你好 🎉", b"good \xff\xfe\x80 bad", "a\0b", "", "good " * 10_000]
    [answer] = session.run_in_c_api(saved_model, [("serving_default", {"text": texts})])
    received = [text.encode("utf-8", "surrogateescape") for text in answer["echo"]]
    assert received == [text if isinstance(text, bytes) else text.encode() for text in texts]


def test_token_ids_go_in_and_integers_come_out(model, saved_model):
    transposed = np.array([[1, 2], [3, 4]]).T  # not contiguous, and int64
    batches = [[[1, 2, 3], [4, 0, 2]], [[2]], np.zeros((0, 4), np.int32), transposed]
    answers = session.run_in_c_api(saved_model, [("tokens", {"input_ids": batch}) for batch in batches])
    for batch, answer in zip(batches, answers, strict=True):
        for key, value in model.tokens(tf.constant(batch, tf.int32)).items():
            assert answer[key].dtype == value.dtype.as_numpy_dtype, key
            assert answer[key].shape == tuple(value.shape), key
            np.testing.assert_allclose(answer[key], value, rtol=1e-6, err_msg=key)


def test_an_empty_list_is_an_empty_batch_of_the_right_rank(saved_model):
    [answer] = session.run_in_c_api(saved_model, [("tokens", {"input_ids": []})])
    assert answer["probabilities"].shape == (0, 2)


def test_a_missing_shard_is_an_error(broken):
    next(broken.glob("variables/variables.data-*")).unlink()
    with pytest.raises(RuntimeError, match="variables.data-00000-of-00001; No such file or directory"):
        session.run_in_c_api(broken, [("serving_default", {"text": TEXTS})])


def test_without_the_op_libraries_the_missing_op_is_named(saved_model, monkeypatch):
    libraries = session.libraries() | {"op_libraries": []}
    monkeypatch.setattr(session, "libraries", lambda: libraries)
    with pytest.raises(RuntimeError, match="Op type not registered 'FastWordpieceTokenize"):
        session.run_in_c_api(saved_model, [("serving_default", {"text": TEXTS})])


def test_too_long_a_wait_is_an_error(saved_model):
    with pytest.raises(RuntimeError, match="no answer from the SavedModel in 0.01 seconds"):
        session.run_in_c_api(saved_model, [("serving_default", {"text": TEXTS})], timeout=0.01)


@pytest.mark.parametrize(
    ("name", "inputs", "message"),
    [
        ("serving_default", {"texts": TEXTS}, "a request to serving_default, expected text, got texts"),
        ("serving_default", {}, "expected text, got none"),
        ("tokens", {"input_ids": [["a"]]}, "wrong input, in tokens_input_ids:0, expected int32, got invalid literal"),
        ("serve", {"text": TEXTS}, "no such signature, expected serving_default or tokens, got serve"),
    ],
)
def test_a_request_that_does_not_fit_says_what_would(saved_model, name, inputs, message):
    with pytest.raises(InputError, match=message):
        session.run_in_c_api(saved_model, [(name, inputs)])


@pytest.mark.parametrize("content", [None, b"", b"half a file"])
def test_a_folder_without_a_whole_saved_model_is_the_users_error(tmp_path, content):
    if content is not None:
        (tmp_path / "saved_model.pb").write_bytes(content)
    with pytest.raises(InputError, match=f"not a SavedModel, in {tmp_path}, expected a folder with a whole"):
        session.signature_tensors(tmp_path)


def run_python(code, request=None):
    """Run a few lines of Python in a process like the one that run_in_c_api starts."""
    command = [sys.executable, "-I", "-c", code]
    return subprocess.run(command, input=json.dumps(request), capture_output=True, text=True, timeout=120, check=False)


def test_the_script_refuses_a_process_that_python_tensorflow_could_have_helped(saved_model):
    request = {**session.libraries(), "saved_model": str(saved_model), "runs": []}
    imports = "import runpy, sys, types; sys.modules |= dict.fromkeys(('tensorflow', 'keras', 'tf_finetune'), types)"
    child = run_python(f"{imports}; runpy.run_path({str(session.C_API)!r}, run_name='__main__')", request)
    assert (child.returncode, child.stdout) == (1, "")
    assert child.stderr.endswith("error: this process proves nothing: it imported tensorflow, keras, tf_finetune\n")


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ({"label": "nothing:0"}, "the graph has no tensor 'nothing:0'"),
        ({"label": "StatefulPartitionedCall:99"}, "StatefulPartitionedCall"),
        ({}, "at least one target"),
    ],
)
def test_a_run_that_fails_is_one_error_line(saved_model, outputs, message):
    run = {"inputs": {"serving_default_text:0": {"dtype": "string", "value": TEXTS}}, "outputs": outputs}
    request = {**session.libraries(), "saved_model": str(saved_model), "runs": [run]}
    with pytest.raises(RuntimeError, match=message):
        session._ask(session.C_API, request, timeout=60)


def test_runs_free_what_they_allocate(saved_model):
    # 200 MB of text goes in; kept, it would show. The peak (ru_maxrss) would not: a child inherits its parent's.
    code = f"""
import json, pathlib, runpy
script, libraries = runpy.run_path({str(session.C_API)!r}), {session.libraries()!r}
tf = script["open_c_api"](libraries["libraries"])
for library in libraries["op_libraries"]:
    script["checked"](tf, tf.TF_LoadLibrary, library.encode())
text, pages = {{"serving_default_text:0": {{"dtype": "string", "value": ["a" * 2_000_000]}}}}, []
with script["loaded"](tf, {str(saved_model)!r}) as (graph, session):
    for _ in range(100):
        script["run"](tf, graph, session, text, {{"echo": "StatefulPartitionedCall:0"}})
        pages.append(int(pathlib.Path("/proc/self/statm").read_text().split()[1]))  # 4 kB each
print(json.dumps((pages[-1] - pages[5]) / 256))
"""
    child = run_python(code)
    assert child.returncode == 0, child.stderr
    assert float(child.stdout) < 50  # megabytes

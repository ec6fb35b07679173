"""The compiled operations against the same formulas in plain TensorFlow: values, gradients and what dropout drops."""

import functools
import stat
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from tf_finetune.bert import kernels
from tf_finetune.native import compiled

pytestmark = pytest.mark.skipif(bool(compiled.why_not()), reason=f"no compiled operations: {compiled.why_not()}")
SEED = (7, 2**40 + 3)


@pytest.fixture(autouse=True)
def as_it_was():
    yield
    compiled.use(True)


def values(*shape, seed=0, dtype="float32"):
    return tf.cast(np.random.default_rng(seed).normal(size=shape) * 2, dtype)


def with_gradients(function, inputs, *, use_compiled):
    """The result and the gradients of a weighted sum of it, as float32."""
    compiled.use(use_compiled)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        result = function(*inputs)
        total = tf.reduce_sum(tf.cast(result, "float32") * values(*result.shape, seed=9))
    return [np.array(tf.cast(one, "float32")) for one in (result, *tape.gradient(total, inputs))]


def gelu_product(x, bias, *factors):
    return kernels.gelu_product(x, bias, factors, training=True)


def dropout_add_norm(x, bias, residual, gamma, beta, *, rate=0.1, seed=None):
    return kernels.dropout_add_norm(x, bias, residual, gamma, beta, rate=rate, seed=seed, epsilon=1e-6, training=True)


def attention(qkv, bias, *, batch, num_heads, rate=0.1, seed=None):
    length = qkv.shape[0] // batch
    lengths = np.maximum(1, length - 2 * np.arange(batch))  # each text is shorter than the one before
    padding = np.arange(length) >= lengths[:, np.newaxis]
    score_bias = tf.constant(np.where(padding, -1e9, 0)[:, np.newaxis, np.newaxis], qkv.dtype)
    return kernels.attention(qkv, bias, score_bias, num_heads=num_heads, rate=rate, seed=seed, training=True)


def case(name, *, rows=36, width=24, dtype="float32"):
    """A function and its inputs; the widths are no multiple of a vector register's."""
    x = values(rows, width, dtype=dtype)
    if name == "gelu_product":
        return gelu_product, [x, values(width, seed=1), values(width, 10, seed=2, dtype=dtype)]
    if name == "gelu_product_low_rank":
        shapes = ((width, 10), (width, 2), (2, 10))
        factors = [values(*shape, seed=seed, dtype=dtype) for seed, shape in enumerate(shapes, 2)]
        return gelu_product, [x, values(width, seed=1), *factors]
    if name == "dropout_add_norm":
        return dropout_add_norm, [x, values(width, seed=1), values(rows, width, seed=2, dtype=dtype)] + [
            values(width, seed=seed) for seed in (3, 4)
        ]
    qkv = values(rows, 3 * width, dtype=dtype)
    function = functools.partial(attention, batch=3 if rows < 1000 else 60, num_heads=2)
    return function, [qkv, tf.cast(values(3 * width, seed=1), dtype)]


NAMES = ("gelu_product", "gelu_product_low_rank", "dropout_add_norm", "attention")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("rows", "width"), [(3, 2), (36, 24), (51, 130), (6000, 384)])
def test_float32_equals_plain_tensorflow(name, rows, width):
    function, inputs = case(name, rows=rows, width=width)
    expected = with_gradients(function, inputs, use_compiled=False)
    for one, other in zip(with_gradients(function, inputs, use_compiled=True), expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-4, atol=2e-5 * max(1, np.abs(other).max()))


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_is_as_near_to_float32_as_plain_tensorflow(name):
    function, inputs = case(name, rows=60, dtype="bfloat16")
    exact = with_gradients(function, [tf.cast(one, "float32") for one in inputs], use_compiled=False)
    plain, ours = (with_gradients(function, inputs, use_compiled=wanted) for wanted in (False, True))
    for wanted, theirs, mine in zip(exact, plain, ours, strict=True):
        assert np.abs(mine - wanted).max() <= 1.1 * np.abs(theirs - wanted).max() + 2**-9 * np.abs(wanted).max()


class TestGelu:
    def test_in_both_tails(self):
        """To the last digits of float32 where x * Phi(x) itself is tiny."""
        from scipy.stats import norm

        x = np.linspace(-12, 12, 4001, dtype=np.float32)
        expected, slope = x * norm.cdf(x.astype(float)), norm.cdf(x.astype(float)) + x * norm.pdf(x.astype(float))
        inputs = [tf.constant(x[:, np.newaxis]), tf.zeros(1)]
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            result = gelu_product(*inputs, tf.ones([1, 1]))
        np.testing.assert_allclose(result[:, 0], expected, rtol=1e-5, atol=1e-37)
        np.testing.assert_allclose(tape.gradient(result, inputs)[0][:, 0], slope, rtol=1e-5, atol=1e-6)

    def test_what_is_not_finite_stays_visible(self):
        for dtype in (tf.float32, tf.bfloat16):
            x = tf.constant([[np.nan], [np.inf], [1.0]], dtype)
            result = tf.cast(gelu_product(x, tf.zeros(1), tf.ones([1, 1], dtype)), tf.float32)
            assert np.isnan(result[0, 0])
            assert np.isinf(result[1, 0])
            assert np.isfinite(result[2, 0])


class TestAttention:
    def context(self, qkv, padding, *, gradients=False, use_compiled=True):
        """Of one head; `padding` (batch, length)."""
        score_bias = tf.constant(np.where(padding, -1e9, 0)[:, np.newaxis, np.newaxis], qkv.dtype)
        function = functools.partial(
            kernels.attention, score_bias=score_bias, num_heads=1, rate=0.1, seed=None, training=True
        )
        found = with_gradients(function, [qkv, tf.zeros(qkv.shape[-1], qkv.dtype)], use_compiled=use_compiled)
        return found if gradients else found[0]

    def test_padding_gets_exactly_nothing(self):
        qkv = values(5, 12).numpy()
        padding = np.array([[0, 0, 0, 1, 1]])
        before = self.context(tf.constant(qkv), padding)
        qkv[3:] *= 7
        np.testing.assert_array_equal(self.context(tf.constant(qkv), padding)[:3], before[:3])

    @pytest.mark.parametrize("case", ["nothing but padding", "large scores"])
    def test_at_the_edges(self, case):
        qkv = values(14, 12) * (30 if case == "large scores" else 1)
        padding = np.full((2, 7), case == "nothing but padding")
        if case == "large scores":
            # Where one key takes all, TensorFlow's float32 gradient is what rounding leaves of a difference.
            expected = self.context(tf.cast(qkv, tf.float64), padding, gradients=True, use_compiled=False)
        else:
            expected = self.context(qkv, padding, gradients=True, use_compiled=False)
        for one, other in zip(self.context(qkv, padding, gradients=True), expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5 * np.abs(other).max())

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_what_is_not_finite_stays_visible(self, value):
        qkv = values(5, 12).numpy()
        qkv[1, 1] = value
        assert not np.isfinite(self.context(tf.constant(qkv), np.zeros((1, 5)))).all()


def mask_of(rate, rows, width, seed=SEED):
    """What dropout_add_norm keeps of ones, read off the gradient that passes it."""
    x = tf.ones([rows, width])
    operations = compiled.operations()
    added = operations.tf_finetune_dropout_add_norm(
        x=x, bias=tf.zeros(width), residual=tf.zeros_like(x), gamma=tf.ones(width), beta=tf.zeros(width),
        seed=tf.constant(seed, tf.int64), rate=rate, epsilon=1e-6,
    ).added  # fmt: skip
    return added.numpy()


class TestMask:
    @pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
    def test_rate_and_scale(self, rate):
        kept = mask_of(rate, 1000, 1000)
        assert (kept == 0).mean() == pytest.approx(rate, abs=0.002)  # four deviations
        assert set(np.unique(kept)) == {np.float32(0), np.float32(65536 / (65536 - round(rate * 65536)))}

    @pytest.mark.parametrize("distance", [1, 2, 3, 16, 64, 128, 512])
    def test_neighbours_are_independent(self, distance):
        zero = mask_of(0.5, 400, 1000).reshape(-1) == 0
        assert (zero[:-distance] == zero[distance:]).mean() == pytest.approx(0.5, abs=0.004)

    def test_nothing_but_the_seed_decides(self):
        one = mask_of(0.5, 100, 100)
        np.testing.assert_array_equal(mask_of(0.5, 100, 100), one)
        for other in ((8, SEED[1]), (7, SEED[1] + 1)):
            assert (mask_of(0.5, 100, 100, other) == one).mean() == pytest.approx(0.5, abs=0.03)

    def test_the_place_of_a_value_decides_and_not_the_shape(self):
        np.testing.assert_array_equal(mask_of(0.5, 3, 700).reshape(-1), mask_of(0.5, 2100, 1).reshape(-1))

    def test_the_generator(self):
        """Threefry 4x32 (Salmon et al. 2011) of 12 rounds, written down once more."""
        lanes, rate = np.empty((64, 8), np.uint16), 0.5
        for counter in range(64):
            words = np.array(threefry((counter, 0, 0, 0), (SEED[0], SEED[1] % 2**32, 0, 0)), np.uint32)
            lanes[counter] = words.view(np.uint16)
        # A word of each of the 64 counters, then the next word of each.
        in_order = lanes.reshape(64, 4, 2).transpose(1, 0, 2).reshape(-1)
        np.testing.assert_array_equal(mask_of(rate, 1, 512)[0] != 0, in_order >= 32768)

    @pytest.mark.parametrize("name", ["dropout_add_norm", "attention"])
    def test_the_gradient_passes_where_the_value_did(self, name):
        """By differences: the loss is linear along each input to first order only if both drop the same values."""
        function, inputs = case(name)
        seeded = (
            (lambda *x: dropout_add_norm(*x, rate=0.4, seed=tf.constant(SEED, tf.int64)))
            if name == "dropout_add_norm"
            else (lambda *x: attention(*x, batch=3, num_heads=2, rate=0.4, seed=tf.constant(SEED, tf.int64)))
        )
        compiled.use(True)
        weights = values(*function(*inputs).shape, seed=5)
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            total = tf.reduce_sum(seeded(*inputs) * weights)
        for place, gradient in enumerate(tape.gradient(total, inputs)):
            step = values(*inputs[place].shape, seed=6) * 1e-3
            ends = [
                float(tf.reduce_sum(seeded(*[x + sign * step * (i == place) for i, x in enumerate(inputs)]) * weights))
                for sign in (1.0, -1.0)
            ]
            assert (ends[0] - ends[1]) / 2 == pytest.approx(float(tf.reduce_sum(gradient * step)), rel=0.02, abs=2e-3)


def threefry(counter, key, rounds=12):
    turns = [(10, 26), (11, 21), (13, 27), (23, 5), (6, 20), (17, 11), (25, 10), (18, 20)]
    keys = [*key, 0x1BD11BDA ^ key[0] ^ key[1] ^ key[2] ^ key[3]]
    x = [(a + b) % 2**32 for a, b in zip(counter, keys, strict=False)]
    for number in range(rounds):
        for low, high, turn in zip((0, 2), (1, 3) if number % 2 == 0 else (3, 1), turns[number % 8], strict=True):
            x[low] = (x[low] + x[high]) % 2**32
            x[high] = ((x[high] << turn | x[high] >> (32 - turn)) % 2**32) ^ x[low]
        if number % 4 == 3:
            at = number // 4 + 1
            x = [(value + keys[(at + i) % 5] + at * (i == 3)) % 2**32 for i, value in enumerate(x)]
    return x


def test_threefry_above_is_the_published_one():
    """An answer that its authors give, for 20 rounds."""
    assert threefry((0, 0, 0, 0), (0, 0, 0, 0), 20) == [0x9C6CA96A, 0xE17EAE66, 0xFC10ECD4, 0x5256A7D8]


# Prints a hash of results of all operations.
HASHES = """
import hashlib, os, sys
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(sys.argv[1])])
import tensorflow as tf
from tf_finetune.bert import kernels
from tf_finetune.native import compiled
assert compiled.operations()
x = tf.random.stateless_normal([4000, 96], (1, 2))
bias, seed = x[0], tf.constant([3, 4], tf.int64)
with tf.GradientTape() as tape:
    tape.watch([x, bias])
    y = kernels.gelu_product(x, bias, (tf.eye(x.shape[1]),), training=True)
    y = kernels.dropout_add_norm(y, bias, x, bias, bias, rate=0.1, seed=seed, epsilon=1e-6, training=True)
    y = kernels.attention(
        y, bias, tf.zeros([40, 1, 1, 100]), num_heads=2, rate=0.1, seed=seed, training=True
    )
print(hashlib.sha256(b"".join(one.numpy().tobytes() for one in (y, *tape.gradient(y, [x, bias])))).hexdigest())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="cores are chosen with sched_setaffinity")
def test_the_number_of_threads_changes_no_bit():
    hashes = [
        subprocess.run([sys.executable, "-c", HASHES, cores], capture_output=True, text=True, check=True).stdout
        for cores in ("1", "64")
    ]
    assert hashes[0] == hashes[1]
    assert len(hashes[0]) == 65


def test_started_in_the_background_it_is_compiled_once(monkeypatch, tmp_path):
    monkeypatch.setenv("TF_FINETUNE_CACHE", str(tmp_path))
    compiled.start()
    path = compiled.library()
    assert [path] == list(tmp_path.rglob("*.so"))
    assert path.stat().st_mtime_ns == compiled.library().stat().st_mtime_ns


class TestWhereThereAreNone:
    @pytest.fixture
    def fresh(self, monkeypatch, tmp_path):
        monkeypatch.setenv("TF_FINETUNE_CACHE", str(tmp_path / "cache"))
        compiled._loaded.cache_clear()
        yield tmp_path
        compiled._loaded.cache_clear()

    def test_without_a_compiler_training_goes_on(self, fresh, monkeypatch, capsys):
        monkeypatch.setenv("PATH", str(fresh))
        monkeypatch.delenv("CXX", raising=False)
        assert compiled.operations() is None
        assert compiled.state() == "not compiled: no C++ compiler"
        assert gelu_product(values(2, 3), values(3), values(3, 4)).shape == (2, 4)
        assert not capsys.readouterr().err

    def test_a_compiler_that_fails_is_named_and_training_goes_on(self, fresh, monkeypatch, capsys):
        broken = fresh / "broken"
        broken.write_text('#!/bin/sh\n[ "$1" = --version ] || { echo no such flag >&2; exit 1; }\n')
        broken.chmod(broken.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("CXX", str(broken))
        assert compiled.operations() is None
        assert capsys.readouterr().err == "warning: training goes on without compiled operations: no such flag\n"
        assert not list((fresh / "cache").rglob("*.so"))

    def test_told_not_to(self):
        compiled.use(False)
        assert compiled.operations() is None
        assert compiled.state() == "not compiled, as asked"


def test_an_inference_graph_has_none_of_them(tmp_path):
    """Only training does: an export must run where nothing is compiled."""
    from tf_finetune import TFBertForSequenceClassification
    from tf_finetune.bert.architecture import BertArchitecture

    architecture = BertArchitecture(
        vocab_size=10, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16
    )
    model = TFBertForSequenceClassification(architecture)
    names = {}
    for training in (None, False, True):
        function = tf.function(lambda ids, training=training: model({"input_ids": ids}, training=training))
        graph = function.get_concrete_function(tf.TensorSpec([None, None], tf.int32)).graph
        names[training] = {operation.type for operation in graph.get_operations() if "TfFinetune" in operation.type}
    assert not names[None]
    assert not names[False]
    assert names[True] == {f"TfFinetune{name}" for name in ("Attention", "BiasGelu", "DropoutAddNorm")}

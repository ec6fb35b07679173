"""Token ids on disk: those of this text, this tokenizer and this length, or none."""

import dataclasses
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from tf_finetune.data import sources, tokenized
from tf_finetune.data.examples import Examples
from tf_finetune.data.tokenized import TokenizedExamples
from tf_finetune.readers.rows import Columns

ROWS = [(" ".join("word" for _ in range(i % 7)) + f" {i}", "ab"[i % 2]) for i in range(100)]


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(tokenized, "FEWEST_ON_DISK", 10)
    monkeypatch.setattr(tokenized, "PIECE", 16)


@pytest.fixture
def source(tmp_path, write_table):
    return write_table(tmp_path / "test.csv", ROWS)


class Encoder:
    """A character a token; counts the texts it was given."""

    def __init__(self, shift=0):
        self.shift, self.texts = shift, 0

    def __call__(self, texts, text_pairs):
        self.texts += len(texts)
        ids = [[1, *(ord(character) + self.shift for character in text)] for text in texts]
        if text_pairs is None:
            return ids, None
        both = [a + [2, *map(ord, pair)] for a, pair in zip(ids, text_pairs, strict=True)]
        return both, [len(a) for a in ids]


def rows_of(examples):
    return [examples.gather(np.array([i])).tolist() for i in range(len(examples))]


def test_the_same_on_disk_and_in_memory(source):
    examples = sources.load(str(source)).examples["test"]
    on_disk = tokenized.tokenized(examples, Encoder(), key="k")
    plain = Examples(list(examples.texts), examples.labels)
    in_memory = tokenized.tokenized(plain, Encoder(), key="k")
    assert rows_of(on_disk) == rows_of(in_memory) == Encoder()(examples.texts, None)[0]
    for name in ("lengths", "labels"):
        np.testing.assert_array_equal(getattr(on_disk, name), getattr(in_memory, name))
        assert getattr(on_disk, name).dtype == getattr(in_memory, name).dtype
    assert on_disk.weights is on_disk.first_lengths is in_memory.first_lengths is None
    draw = np.array([99, 0, 17, 17, 16, 15])
    np.testing.assert_array_equal(on_disk.gather(draw), in_memory.gather(draw))
    assert on_disk.gather(draw).dtype == np.int32
    assert on_disk.gather(draw[:0]).tolist() == []


def test_texts_without_tokens(source):
    examples = sources.load(str(source)).examples["test"]
    empty = tokenized.tokenized(examples, lambda texts, pairs: ([[] for _ in texts], None), key="k")
    assert empty.gather(np.arange(100)).tolist() == []


def test_pairs_and_weights(tmp_path):
    path = tmp_path / "test.csv"
    path.write_text("text,label,other,w\n" + "".join(f"t{i},{i % 2},pair {i},{i / 2}\n" for i in range(40)))
    columns = Columns(text_pair="other", weight="w")
    examples = sources.load(str(path), columns=columns).examples["test"]
    for some in (examples, examples.take(np.arange(5))):  # on disk, in memory
        tokens = tokenized.tokenized(some, Encoder(), key="k")
        assert rows_of(tokens) == Encoder()(some.texts, some.text_pairs)[0]
        assert tokens.first_lengths.tolist() == [1 + len(text) for text in some.texts]
        assert tokens.weights.tolist() == [i / 2 for i in range(len(some))]
        assert (tokens.first_lengths.dtype, tokens.weights.dtype) == ("int64", "float32")


@pytest.mark.parametrize(
    ("labels", "dtype"), [([1, 0], "int32"), ([0.5, 2.0], "float32"), ([[1.0, 0.0], [0.0, 0.0]], "float32")]
)
def test_labels(labels, dtype):
    examples = TokenizedExamples.from_lists([[1], [1, 2]], labels)
    assert examples.labels.tolist() == labels
    assert examples.labels.dtype == dtype


class TestKey:
    def encoded(self, examples, key="k"):
        """How many texts were tokenised."""
        encoder = Encoder()
        tokens = tokenized.tokenized(examples, encoder, key=key)
        assert rows_of(tokens) == Encoder()(examples.texts, examples.text_pairs)[0]
        return encoder.texts

    def load(self, source, **options):
        return sources.load(str(source), **options).examples["test"]

    def test_once(self, source):
        assert [self.encoded(self.load(source)) for _ in range(3)] == [100, 0, 0]

    def test_touched(self, source):
        self.encoded(self.load(source))
        os.utime(source, (1, 1))
        assert self.encoded(self.load(source)) == 0

    def test_changed(self, source):
        self.encoded(self.load(source))
        source.write_bytes(source.read_bytes().replace(b"word 1,", b"work 1,"))
        assert self.encoded(self.load(source)) == 100

    def test_other_labels_alone_are_read_anew_with_the_file(self, source):
        self.encoded(self.load(source))
        content = source.read_text().replace(",a\n", ",c\n")
        source.write_text(content)
        examples = self.load(source)
        assert tokenized.tokenized(examples, Encoder(), key="k").labels.tolist() == [1, 0] * 50

    def test_another_key(self, source):
        assert [self.encoded(self.load(source), key) for key in ("k", "l", "k")] == [100, 100, 0]

    def test_another_selection(self, source):
        draws = [{"seed": 1}, {"seed": 2}, {"seed": 1}]
        assert [self.encoded(self.load(source, max_examples=20, **draw)) for draw in draws] == [20, 20, 0]

    def test_another_order_of_the_same_rows(self, source):
        examples = self.load(source)
        assert self.encoded(examples.take(np.arange(100))) == 100
        assert self.encoded(examples.take(np.arange(100)[::-1])) == 100

    def test_with_a_second_text(self, tmp_path):
        path = tmp_path / "test.csv"
        path.write_text("text,label,other\n" + "".join(f"t{i},{i % 2},pair {i}\n" for i in range(40)))
        single, pairs = self.load(path), self.load(path, columns=Columns(text_pair="other"))
        assert [self.encoded(single), self.encoded(pairs), self.encoded(pairs)] == [40, 40, 0]

    def test_few_are_not_kept(self, source, data_cache):
        examples = self.load(source).take(np.arange(9))
        before = list(data_cache.iterdir())
        assert [self.encoded(examples) for _ in range(2)] == [9, 9]
        assert list(data_cache.iterdir()) == before

    @pytest.mark.parametrize("damage", ["cut", "flipped"])
    def test_damaged(self, source, data_cache, capfd, damage):
        examples = self.load(source)
        self.encoded(examples)
        (file,) = data_cache.glob("*/tokens.arrow")
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content if damage == "flipped" else content[:-8])
        assert self.encoded(examples) == 100
        assert self.encoded(examples) == 0
        (line,) = capfd.readouterr().err.splitlines()
        assert line.startswith("warning: tokens of 100 texts: the copy in ")

    @pytest.mark.parametrize("after", [0, 1, 5])
    def test_interrupted(self, source, data_cache, after):
        examples, encoder, pieces = self.load(source), Encoder(), []

        def encode(texts, text_pairs):
            if len(pieces) == after:
                raise KeyboardInterrupt
            pieces.append(len(texts))
            return encoder(texts, text_pairs)

        before = list(data_cache.iterdir())
        with pytest.raises(KeyboardInterrupt):
            tokenized.tokenized(examples, encode, key="k")
        assert list(data_cache.iterdir()) == before
        assert self.encoded(examples) == 100

    def test_killed(self, source, data_cache):
        code = (
            "import sys, time; from tf_finetune.data import sources, tokenized\n"
            "tokenized.FEWEST_ON_DISK, tokenized.PIECE = 10, 16\n"
            "def encode(texts, pairs):\n"
            "    if texts[0].endswith(' 48'): print('half', flush=True); time.sleep(600)\n"
            "    return [[1] for _ in texts], None\n"
            "tokenized.tokenized(sources.load(sys.argv[1]).examples['test'], encode, key='k')"
        )
        process = subprocess.Popen([sys.executable, "-c", code, str(source)], stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout.readline() == "half\n"
            assert len(list(data_cache.glob(".*"))) == 1
            process.send_signal(signal.SIGKILL)
            process.wait()
        finally:
            process.kill()
            process.communicate()
        assert self.encoded(self.load(source)) == 100
        assert list(data_cache.glob(".*")) == []

    def test_a_full_disk(self, source, monkeypatch, data_cache, capfd):
        from datasets.arrow_writer import ArrowWriter

        examples = self.load(source)

        original, failed = ArrowWriter.finalize, []

        def fail(writer):
            if not failed:
                failed.append(writer)
                raise OSError(28, "No space left on device")
            return original(writer)

        before = list(data_cache.iterdir())
        monkeypatch.setattr(ArrowWriter, "finalize", fail)
        tokens = tokenized.tokenized(examples, Encoder(), key="k")
        assert rows_of(tokens) == Encoder()(examples.texts, None)[0]
        assert list(data_cache.iterdir()) == before
        assert "No space left on device" in capfd.readouterr().err


def test_what_examples_are_cannot_be_changed(source):
    examples = sources.load(str(source)).examples["test"]
    with pytest.raises(dataclasses.FrozenInstanceError):
        examples.texts = []
    with pytest.raises(ValueError, match="read-only"):
        tokenized.tokenized(examples, Encoder(), key="k").token_ids[0] = 1


def test_the_digest_is_that_of_the_examples_wherever_they_lie(source):
    examples = sources.load(str(source)).examples["test"]
    on_disk = tokenized.tokenized(examples, Encoder(), key="k")
    in_memory = tokenized.tokenized(Examples(list(examples.texts), examples.labels), Encoder(), key="k")
    assert on_disk.digest() == in_memory.digest()


def test_the_digest_changes_with_all_that_training_sees():
    ids, labels = [[1, 2, 3], [4, 5]], [0, 1]
    made = TokenizedExamples.from_lists
    others = [
        made(ids, labels),
        made([[1, 2, 3], [4, 6]], labels),
        made([[1, 2], [3, 4, 5]], labels),
        made(ids, [1, 1]),
        made(ids, [0.0, 1.0]),
        made(ids, labels, weights=[1.0, 1.0]),
        made(ids, labels, weights=[1.0, 2.0]),
        made(ids, labels, first_lengths=[2, 2]),
        made(ids[:1], labels[:1]),
    ]
    assert len({one.digest() for one in others}) == len(others)
    assert made(ids, labels).digest() == made(ids, labels).digest()

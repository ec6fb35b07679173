"""Compares the tokenizer in the graph with `tokenizers` and prints how many strings differ; none may.

python tests/in_graph_parity.py [--strings 1000000] [--only texts] [--judge PYTHON]

Half an hour on two cores; `tests/text/in_graph_test.py` runs a small part of it. Every code point is tried in all
settings, with a vocabulary that can spell whatever it becomes. With --judge the code points are tokenized by another
Python's TensorFlow, from a SavedModel, and nothing else is compared.
"""

import argparse
import json
import os
import random
import subprocess
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
from in_graph_cases import (  # noqa: E402
    ALL_SWITCHES,
    CASED,
    UNCASED,
    Reference,
    Switches,
    in_graph,
    python_reads,
    random_text,
    vocabulary_of,
)

from tf_finetune.config import ModelConfig, Truncation  # noqa: E402
from tf_finetune.pretrained import local_checkpoint  # noqa: E402
from tf_finetune.readers.reviews import packaged_reviews  # noqa: E402
from tf_finetune.readers.rows import refuse  # noqa: E402
from tf_finetune.text.tokenizer import Tokenizer  # noqa: E402

CHUNK = 1 << 16  # texts a vocabulary
WHOLE = 1_000_000
MAX_LENGTHS = (3, 4, 5, 7, 10, 16)

JUDGED_SWITCHES = (UNCASED, CASED, Switches(True, False, False, False))

# Run by the judge, which needs nothing but TensorFlow and tensorflow-text: a folder's model and texts.json -> ids.npz.
JUDGE = """
import json, sys
import numpy as np, tensorflow as tf, tensorflow_text
texts = tf.constant(json.load(open(sys.argv[1] + "/texts.json")))
ids, lengths = tf.saved_model.load(sys.argv[1] + "/model").tokenize(texts)
np.savez(sys.argv[1] + "/ids.npz", ids=ids.numpy(), lengths=lengths.numpy())
"""


def code_point_texts(first: int, last: int) -> list[str]:
    """Each character at both ends of a text, between letters, doubled, and between marks that it may keep apart."""
    codes = [code for code in range(first, last) if not 0xD800 <= code < 0xE000]
    return [f"{c}a{c}b {c}{c} e\U0001d16d{c}\u302e \u0301{c}\u0327x{c}" for c in map(chr, codes)]


def judged(judge: str, tokenizer, texts: list[str]) -> list[np.ndarray]:
    """The ids that another Python's TensorFlow gives, from a SavedModel."""
    module = tf.Module()

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def tokenize(texts):
        ids = tokenizer(texts)
        return ids.flat_values, ids.row_lengths()

    module.tokenize = tokenize
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(module, f"{folder}/model")
        (Path(folder) / "texts.json").write_text(json.dumps(texts))
        subprocess.run([judge, "-c", JUDGE, folder], check=True)
        found = np.load(Path(folder) / "ids.npz")
        return np.split(found["ids"], np.cumsum(found["lengths"])[:-1])


def count_differences(found, expected, texts) -> int:
    """Prints the first few that differ."""
    differing = [
        (text, list(a), list(b)) for text, a, b in zip(texts, found, expected, strict=True) if list(a) != list(b)
    ]
    for text, ours, theirs in differing[:3]:
        print(f"  {text!a:.80}: {ours[:20]}, tokenizers {theirs[:20]}", flush=True)
    return len(differing)


class Table:
    """Prints a line a check."""

    def __init__(self):
        self.failures = 0

    def add(self, name: str, compared: int, differences: int, since: float) -> None:
        self.failures += differences
        print(f"{name:<68} {compared:>9,} {differences:>7} {time.perf_counter() - since:>6.0f} s", flush=True)


def check_code_points(table: Table, name: str, switches: Switches, judge: str | None, vocabulary=None) -> None:
    began, compared, differences = time.perf_counter(), 0, 0
    step = CHUNK if judge is None else 4 * CHUNK
    for first in range(0, 0x110000, step):
        texts = code_point_texts(first, min(first + step, 0x110000))
        spelling = vocabulary or vocabulary_of(texts, switches)
        tokenizer = in_graph(spelling, switches)
        found = tokenizer(tf.constant(texts)).to_list() if judge is None else judged(judge, tokenizer, texts)
        expected = Reference(spelling, switches).encode(texts)
        compared, differences = compared + len(texts), differences + count_differences(found, expected, texts)
    table.add(f"code points, {name}", compared, differences, began)


def check_texts(table: Table, name: str, switches: Switches, texts: list[bytes], vocabulary=None) -> None:
    """Single texts and pairs of neighbours, whole and cut, each chunk to other short lengths."""
    counts = {}
    for chunk, start in enumerate(range(0, len(texts), CHUNK)):
        raw = texts[start : start + CHUNK]
        read, pairs = python_reads(raw), raw[-1:] + raw[:-1]
        spelling = vocabulary or vocabulary_of(read, switches)
        reference = Reference(spelling, switches)
        expected_ids = reference.ids(read)
        expected_pairs = expected_ids[-1:] + expected_ids[:-1]
        cuts = [(MAX_LENGTHS[(chunk + index) % len(MAX_LENGTHS)], cut) for index, cut in enumerate(Truncation)]
        for max_length, truncation in [(WHOLE, Truncation.HEAD), *cuts]:
            label = "whole" if max_length == WHOLE else truncation.value
            tokenizer, began = in_graph(spelling, switches, max_length, truncation), time.perf_counter()
            found = tokenizer(tf.constant(raw)).to_list()
            expected = reference.shorten(expected_ids, max_length, truncation)
            _count(counts, f"{name}, {label}", raw, count_differences(found, expected, raw), began)
            began = time.perf_counter()
            found = [ids.to_list() for ids in tokenizer.encode_pairs(tf.constant(raw), tf.constant(pairs))]
            expected = reference.shorten_pairs(expected_ids, expected_pairs, max_length, truncation)
            found, expected = (list(zip(*both, strict=True)) for both in (found, expected))
            _count(counts, f"{name}, pairs, {label}", raw, count_differences(found, expected, raw), began)
    for label, (compared, differences, seconds) in counts.items():
        table.add(label, compared, differences, time.perf_counter() - seconds)


def _count(counts: dict, label: str, texts: list, differences: int, began: float) -> None:
    before = counts.get(label, (0, 0, 0.0))
    added = (len(texts), differences, time.perf_counter() - began)
    counts[label] = tuple(old + new for old, new in zip(before, added, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--strings", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=["code_points", "texts"])
    parser.add_argument("--judge", help="the Python of an environment with another TensorFlow and tensorflow-text")
    arguments = parser.parse_args()
    minilm = Tokenizer(local_checkpoint(ModelConfig().checkpoint)).vocabulary
    table = Table()
    print(f"{'check':<68} {'strings':>9} differing")
    if arguments.only != "texts":
        check_code_points(table, "MiniLM's vocabulary", UNCASED, arguments.judge, minilm)
        for switches in ALL_SWITCHES if arguments.judge is None else JUDGED_SWITCHES:
            name = ", ".join(f"{switch} {value}" for switch, value in switches._asdict().items())
            check_code_points(table, name.replace("tokenize_", "").replace("_", " "), switches, arguments.judge)
    if arguments.only != "code_points" and arguments.judge is None:
        rng = random.Random(arguments.seed)
        texts = {
            "reviews": [text.encode() for text, *_ in packaged_reviews()(refuse)],
            "random": [random_text(rng) for _ in range(arguments.strings)],
        }
        for kind, strings in texts.items():
            check_texts(table, f"{kind}, MiniLM's vocabulary", UNCASED, strings, minilm)
            check_texts(table, f"{kind}, uncased", UNCASED, strings)
            check_texts(table, f"{kind}, cased", CASED, strings)
    print("equal" if table.failures == 0 else f"{table.failures} strings differ")
    raise SystemExit(table.failures > 0)


if __name__ == "__main__":
    main()

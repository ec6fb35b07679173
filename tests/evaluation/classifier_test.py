import contextlib
import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from tf_finetune import TFBertForSequenceClassification, devices
from tf_finetune.config import Truncation
from tf_finetune.data import sources, tokenized
from tf_finetune.evaluation.classifier import Classifier
from tf_finetune.readers.rows import Columns
from tf_finetune.text.tokenizer import Tokenizer


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TF_FINETUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(tokenized, "FEWEST_ON_DISK", 1)


@pytest.fixture
def examples(tmp_path):
    path = tmp_path / "test.csv"
    path.write_text("text,label,other\n" + "".join(f"The film was {'very ' * i}good,{i % 2},bad\n" for i in range(20)))

    def examples(**columns):
        return sources.load(str(path), columns=Columns(**columns), whole_file=True).examples["test"]

    return examples


@pytest.fixture
def cased(tiny_checkpoint, tmp_path):
    """The same vocabulary, and a tokenizer that keeps capitals."""
    folder = shutil.copytree(tiny_checkpoint, tmp_path / "cased")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink(missing_ok=True)
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "BertTokenizer", "do_lower_case": False})
    )
    return folder


def classifier(folder, max_length=12, truncation=Truncation.HEAD):
    return Classifier(SimpleNamespace(), Tokenizer(folder), max_length=max_length, truncation=truncation)


def test_tokens_on_disk_are_those_of_this_tokenizer_and_length(examples, tiny_checkpoint, cased):
    """Each asked for twice, so that a key which leaves something out would give another one's tokens."""
    options = [
        (tiny_checkpoint, 12, Truncation.HEAD),
        (tiny_checkpoint, 8, Truncation.HEAD),
        (tiny_checkpoint, 8, Truncation.TAIL),
        (tiny_checkpoint, 8, Truncation.HEAD_TAIL),
        (cased, 12, Truncation.HEAD),
    ]
    texts, seen = examples(), set()
    for folder, max_length, truncation in options * 2:
        tokens = classifier(folder, max_length, truncation).tokenize(texts)
        expected = Tokenizer(folder).encode(list(texts.texts), max_length=max_length, truncation=truncation)
        assert [tokens.gather(np.array([i])).tolist() for i in range(20)] == expected
        seen.add(json.dumps(expected))
    assert len(seen) == len(options)


def test_tokens_are_made_once(examples, tiny_checkpoint, monkeypatch):
    classifier(tiny_checkpoint).tokenize(examples())
    monkeypatch.setattr(Tokenizer, "encode", None)
    assert len(classifier(tiny_checkpoint).tokenize(examples())) == 20


def test_pairs(examples, tiny_checkpoint):
    pairs = examples(text_pair="other")
    tokens = classifier(tiny_checkpoint).tokenize(pairs)
    ids, types = Tokenizer(tiny_checkpoint).encode_pairs(
        list(pairs.texts), list(pairs.text_pairs), max_length=12, truncation=Truncation.HEAD
    )
    assert [tokens.gather(np.array([i])).tolist() for i in range(20)] == ids
    assert tokens.first_lengths.tolist() == [each.count(0) for each in types]


def test_a_checkpoint_answers_in_whole_float32_and_training_as_it_trains(tiny_checkpoint, monkeypatch):
    calls = []
    monkeypatch.setattr(devices, "whole_float32", lambda: calls.append("asked") or contextlib.nullcontext())
    options = {"max_length": 16, "truncation": Truncation.HEAD}
    loaded = Classifier.from_checkpoint(tiny_checkpoint, **options)
    Classifier(loaded.model, loaded.tokenizer, **options).logits(["good"])
    assert calls == []
    loaded.logits(["good"])
    assert calls == ["asked"]


def test_batches_of_every_shape_are_computed_by_one_graph(tiny_checkpoint, examples):
    model = TFBertForSequenceClassification.from_pretrained(tiny_checkpoint, num_labels=2, new_head=True)
    options = {"max_length": 12, "truncation": Truncation.HEAD, "batch_size": 3}
    asked = Classifier(model, Tokenizer(tiny_checkpoint), **options)
    asked.logits(["good"])
    asked.logits_of(asked.tokenize(examples()))
    assert model.predict_function.experimental_get_tracing_count() == 1

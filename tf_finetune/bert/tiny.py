"""A random BERT of a few thousand weights, for trying the road out where nothing can be fetched."""

import json
import string
from pathlib import Path

from tf_finetune.bert.architecture import BertArchitecture


def write_tokenizer(folder: Path) -> int:
    """Writes a tokenizer of a token a character; returns the size of its vocabulary."""
    characters = string.ascii_lowercase + string.digits + string.punctuation
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *characters, *(f"##{c}" for c in characters)]
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    settings = {"tokenizer_class": "BertTokenizer", "do_lower_case": True}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return len(vocabulary)


def write_random_checkpoint(folder: Path) -> None:
    """Writes a checkpoint in the Hugging Face layout: untrained, two layers, a token a character."""
    from tf_finetune.bert.model import TFBertModel  # Keras, which whoever wants the tokenizer alone can do without

    architecture = BertArchitecture(
        vocab_size=write_tokenizer(folder),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
    )
    model = TFBertModel(architecture)
    model.build()
    model.save_pretrained(folder)

"""What all peers work on: texts, and checkpoints that each of their libraries can read. Made once, kept in .data."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
from corpora import imdb_lengths, joined_to

from tf_finetune import pretrained
from tf_finetune.bert.architecture import BertArchitecture
from tf_finetune.config import ModelConfig, Truncation
from tf_finetune.readers.reviews import packaged_reviews
from tf_finetune.readers.rows import refuse
from tf_finetune.text.tokenizer import Tokenizer

DATA = Path(__file__).parent / ".data"
LABELS = ("negative", "positive")
SEED = 0
# Four windows of 50 batches of 32: padding is what it is in an epoch of IMDB's 25,000.
LONG_TRAIN, LONG_VALIDATION = 6400, 512
FULL_TEXTS, FULL_LENGTH = 2048, 128


def prepare() -> None:
    """Makes whatever is not there yet: the packaged MiniLM, and `base`, BERT-base's shapes with random weights."""
    DATA.mkdir(exist_ok=True)
    if not (DATA / "minilm").is_dir():
        source = pretrained.local_checkpoint(ModelConfig().checkpoint)
        write_checkpoint(DATA / "minilm", BertArchitecture.from_folder(source), tokenizer=source, weights=source)
    if not (DATA / "base").is_dir():
        write_checkpoint(DATA / "base", BertArchitecture(), tokenizer=DATA / "minilm")
    if not (DATA / "full_validation.jsonl").is_file():
        write_corpora(Tokenizer(DATA / "minilm"))


def path_of(corpus: str, split: str) -> Path:
    return DATA / f"{corpus}_{split}.jsonl"


def reviews() -> dict[str, list[tuple[str, int]]]:
    """The packaged reviews, in the splits that `train` makes: by the sha256 of the text."""
    splits: dict[str, list[tuple[str, int]]] = {"train": [], "validation": [], "test": []}
    for row in packaged_reviews()(refuse):
        tenth = int(hashlib.sha256(row.text.encode("utf-8")).hexdigest(), 16) % 10
        splits[{0: "test", 1: "validation"}.get(tenth, "train")].append((row.text, LABELS.index(row.label)))
    return splits


def write_corpora(tokenizer: Tokenizer) -> None:
    """reviews; long: as long as IMDB's; full: every text as long as the cap of one step."""
    splits = reviews()
    for split, size in (("train", LONG_TRAIN), ("validation", LONG_VALIDATION)):
        rows = splits[split]
        write_rows("reviews", split, rows)
        write_rows("long", split, joined(rows, imdb_lengths(size, seed=SEED), tokenizer))
        write_rows("full", split, joined(rows, np.full(FULL_TEXTS, FULL_LENGTH), tokenizer))


def joined(rows: list[tuple[str, int]], lengths: np.ndarray, tokenizer: Tokenizer) -> list[tuple[str, int]]:
    """Texts of these lengths, each of reviews of one label; the labels take turns."""
    made: list[tuple[str, int]] = [("", 0)] * len(lengths)
    for label in range(len(LABELS)):
        texts = [text for text, its_label in rows if its_label == label]
        ids = tokenizer.encode(texts, max_length=512, truncation=Truncation.HEAD)
        pieces = np.array([len(one) - 2 for one in ids])
        of_label = slice(label, None, len(LABELS))
        made[of_label] = [(text, label) for text in joined_to(lengths[of_label], texts, pieces, seed=SEED)]
    return made


def write_rows(corpus: str, split: str, rows: list[tuple[str, int]]) -> None:
    lines = [json.dumps({"text": text, "label": label}) for text, label in rows]
    path_of(corpus, split).write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_checkpoint(
    folder: Path, architecture: BertArchitecture, *, tokenizer: Path, weights: Path | None = None
) -> None:
    """A checkpoint that every peer's library reads: safetensors and tf_model.h5, vocab.txt and tokenizer.json.

    Args:
        folder: made here.
        architecture: of the model.
        tokenizer: a folder with the tokenizer.
        weights: a checkpoint; None means random ones. The classifier is random in any case, and so the same for all.
    """
    import keras
    from safetensors.numpy import load_file

    from tf_finetune.bert.model import TFBertForSequenceClassification

    keras.utils.set_random_seed(SEED)
    aside = folder.with_suffix(".part")
    shutil.rmtree(aside, ignore_errors=True)
    if weights is None:
        model = TFBertForSequenceClassification(architecture)
        model.build()
    else:
        model = TFBertForSequenceClassification.from_pretrained(weights, num_labels=len(LABELS), new_head=True)
    model.save_pretrained(aside)
    kept = Tokenizer(tokenizer)
    kept.save_pretrained(aside)
    vocabulary = "\n".join(kept.vocabulary) + "\n"
    (aside / "vocab.txt").write_text(vocabulary, encoding="utf-8")
    options = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": 512}
    (aside / "tokenizer_config.json").write_text(json.dumps(options), encoding="utf-8")
    write_h5(aside / "tf_model.h5", load_file(aside / "model.safetensors"))
    aside.rename(folder)


def write_h5(path: Path, tensors: dict[str, np.ndarray]) -> None:
    """The tensors as the TF classes of `transformers` wrote them, and read them by place within a layer."""
    import h5py

    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [b"bert", b"classifier"]
        for layer in ("bert", "classifier"):
            named = [tf_tensor(name, value) for name, value in tensors.items() if name.startswith(layer)]
            group = file.create_group(layer)
            group.attrs["weight_names"] = [name.encode() for name, _ in named]
            for name, value in named:
                group[name] = value


def tf_tensor(name: str, value: np.ndarray) -> tuple[str, np.ndarray]:
    """`bert.encoder.layer.0.output.dense.weight` -> `NAME/bert/encoder/layer_._0/output/dense/kernel:0`, and turned."""
    *parts, last = name.replace("layer.", "layer_").split(".")
    if last == "weight" and not parts[-1].endswith("_embeddings"):
        last, value = ("gamma", value) if parts[-1] == "LayerNorm" else ("kernel", value.T)
    elif last == "bias" and parts[-1] == "LayerNorm":
        last = "beta"
    parts = [part.replace("layer_", "layer_._") for part in parts]
    return "/".join(["tf_bert_for_sequence_classification", *parts, f"{last}:0"]), value

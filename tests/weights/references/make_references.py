"""Writes the small checkpoints beside this file: as older software wrote them, with the outputs of that software.

The loaders of TensorFlow checkpoints are tested against these folders, so that no test needs the old software: the
TF classes left transformers with version 5, and Google's code needs TensorFlow 1. Made by

    python3.11 -m venv references-venv
    references-venv/bin/pip install transformers==4.57.6 tensorflow==2.19.1 tf-keras==2.19.0 torch==2.13.0
    references-venv/bin/python tests/weights/references/make_references.py

which takes less than a minute and overwrites the folders. Each one is a layout that people hold:

    tf_h5                 what fine-tuning with TFBertForSequenceClassification saved by default
    tf_safetensors        the same class, saved with `safe_serialization=True`: TensorFlow's names and shapes
    tf_pretraining_h5     as google-bert/bert-base-uncased ships its tf_model.h5: the pretraining heads, no classifier
    tf_model_only_h5      an encoder alone, from TFBertModel
    google_ckpt           an archive of google-research/bert: no model_type, no labels, nothing on letter case
    google_ckpt_finetuned what run_classifier.py leaves there, with the configuration and vocabulary it was given

The graphs are left out (`*.meta`, graph.pbtxt): they are large, and no loader needs them.

Every folder holds expected.npz: the inputs `input_ids`, `attention_mask` and `token_type_ids`, int32 (3, 12); the
outputs `last_hidden_state` (3, 12, 16), `pooler_output` (3, 16) and, where there is a classifier, `logits` (3, 3).
The TF classes compute theirs themselves. For Google's checkpoints the judge is the converter to PyTorch that
transformers has for them; it takes the exact GELU, where Google's later code has the approximation by tanh, which
changes these outputs by up to 5e-4.
"""

import json
import os
import shutil
from pathlib import Path

os.environ["TF_USE_LEGACY_KERAS"] = "1"  # The TF classes know no Keras 3; read when TensorFlow is imported.

import numpy as np
import tensorflow as tf
import torch
from transformers import (
    BertConfig,
    BertForPreTraining,
    BertForSequenceClassification,
    BertTokenizer,
    TFBertForPreTraining,
    TFBertForSequenceClassification,
    TFBertModel,
)
from transformers.models.bert.modeling_bert import load_tf_weights_in_bert

HERE = Path(__file__).parent
SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LETTERS = "abcdefghijklmnopqrstuvwxyz"
UNCASED = [*SPECIAL_TOKENS, *LETTERS, *(f"##{letter}" for letter in LETTERS), "good", "bad", "film"]
CASED = [*SPECIAL_TOKENS, *LETTERS, *LETTERS[:14].upper(), *(f"##{letter}" for letter in LETTERS[:12]), "good", "Bad"]
LABELS = {0: "neutral", 1: "bad", 2: "good"}
# The keys of Google's English checkpoints, and those that its multilingual and Chinese ones have besides.
SIZES = {
    "attention_probs_dropout_prob": 0.1,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": 16,
    "initializer_range": 0.3,
    "intermediate_size": 32,
    "max_position_embeddings": 24,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "type_vocab_size": 2,
    "vocab_size": len(UNCASED),
}
MULTILINGUAL_KEYS = {
    "directionality": "bidi",
    "pooler_fc_size": 16,
    "pooler_num_attention_heads": 2,
    "pooler_num_fc_layers": 3,
    "pooler_size_per_head": 8,
    "pooler_type": "first_token_transform",
}


def main() -> None:
    custom = {"id2label": LABELS, "label2id": {name: index for index, name in LABELS.items()}, "annotators": 7}
    write_tf_class(new_folder("tf_h5"), TFBertForSequenceClassification, BertConfig(**SIZES, **custom), seed=1)
    four_heads = SIZES | {"num_attention_heads": 4}
    write_tf_class(
        new_folder("tf_safetensors"),
        TFBertForSequenceClassification,
        BertConfig(**four_heads, **custom),
        seed=2,
        safe_serialization=True,
    )
    write_tf_class(new_folder("tf_pretraining_h5"), TFBertForPreTraining, BertConfig(**SIZES), seed=3)
    write_tf_class(new_folder("tf_model_only_h5"), TFBertModel, BertConfig(**four_heads), seed=4)
    write_google_pretrained(new_folder("google_ckpt"), four_heads, seed=5)
    multilingual = SIZES | MULTILINGUAL_KEYS | {"vocab_size": len(CASED)}
    write_google_finetuned(new_folder("google_ckpt_finetuned"), multilingual, seed=6)


def write_tf_class(
    folder: Path, model_class: type, config: BertConfig, *, seed: int, safe_serialization: bool = False
) -> None:
    model = model_class(config)
    model.build_in_name_scope()  # As from_pretrained does: the stored names begin with the model's own.
    randomness = np.random.default_rng(seed)
    for weight in model.weights:
        weight.assign(random_value(randomness, weight.name.removesuffix(":0"), weight.shape))
    model.save_pretrained(folder, safe_serialization=safe_serialization)
    write_vocabulary(folder, UNCASED)
    BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)

    inputs = random_inputs(randomness, config.vocab_size)
    outputs = model.bert(inputs)
    expected = {"last_hidden_state": outputs.last_hidden_state.numpy(), "pooler_output": outputs.pooler_output.numpy()}
    if isinstance(model, TFBertForSequenceClassification):
        expected["logits"] = model(inputs).logits.numpy()
    np.savez(folder / "expected.npz", **inputs, **expected)


def write_google_pretrained(folder: Path, settings: dict, *, seed: int) -> None:
    randomness = np.random.default_rng(seed)
    shapes = encoder_shapes(settings) | pretraining_head_shapes(settings)
    variables = {name: random_value(randomness, name, shape) for name, shape in shapes.items()}
    save_variables(folder / "bert_model.ckpt", variables | {"global_step": np.int64(1_000_000)})
    (folder / "checkpoint").unlink()  # A note of TensorFlow's on which file is the newest; the archives have none.
    write_vocabulary(folder, UNCASED)
    write_google_config(folder, settings)

    model = BertForPreTraining(BertConfig.from_json_file(folder / "bert_config.json"))
    inputs = random_inputs(randomness, settings["vocab_size"])
    outputs = converted_encoder_outputs(model, folder / "bert_model.ckpt", inputs)
    np.savez(folder / "expected.npz", **inputs, **outputs)


def write_google_finetuned(folder: Path, settings: dict, *, seed: int) -> None:
    randomness = np.random.default_rng(seed)
    shapes = encoder_shapes(settings)
    shapes |= {"output_weights": (len(LABELS), settings["hidden_size"]), "output_bias": (len(LABELS),)}
    variables = {name: random_value(randomness, name, shape) for name, shape in shapes.items()}
    # Google's optimizer names its two moments after the weight that they belong to.
    slots = {f"{name}/adam_m": randomness.normal(size=shape) for name, shape in shapes.items()}
    slots |= {f"{name}/adam_v": randomness.random(shape) for name, shape in shapes.items()}
    slots = {name: value.astype(np.float32) for name, value in slots.items()}
    save_variables(folder / "model.ckpt-30", variables | slots | {"global_step": np.int64(30)})
    write_vocabulary(folder, CASED)
    write_google_config(folder, settings)

    config = BertConfig.from_json_file(folder / "bert_config.json")
    config.num_labels = len(LABELS)
    model = BertForSequenceClassification(config)
    # The converter puts `output_weights` in the model itself, where no class has such a parameter, and stops.
    model.weight, model.bias = model.classifier.weight, model.classifier.bias
    inputs = random_inputs(randomness, settings["vocab_size"])
    outputs = converted_encoder_outputs(model, folder / "model.ckpt-30", inputs)
    outputs["logits"] = outputs["pooler_output"] @ variables["output_weights"].T + variables["output_bias"]
    np.savez(folder / "expected.npz", **inputs, **outputs)


def converted_encoder_outputs(model: torch.nn.Module, checkpoint: Path, inputs: dict) -> dict[str, np.ndarray]:
    load_tf_weights_in_bert(model, model.config, checkpoint)
    with torch.inference_mode():
        outputs = model.eval().bert(**{name: torch.from_numpy(value).long() for name, value in inputs.items()})
    return {name: outputs[name].numpy() for name in ("last_hidden_state", "pooler_output")}


def encoder_shapes(settings: dict) -> dict[str, tuple[int, ...]]:
    """The variables of Google's modeling.py, named there by nested scopes."""
    hidden, intermediate = settings["hidden_size"], settings["intermediate_size"]
    shapes = {
        "bert/embeddings/word_embeddings": (settings["vocab_size"], hidden),
        "bert/embeddings/token_type_embeddings": (settings["type_vocab_size"], hidden),
        "bert/embeddings/position_embeddings": (settings["max_position_embeddings"], hidden),
        **layer_norm_shapes("bert/embeddings/LayerNorm", hidden),
    }
    for index in range(settings["num_hidden_layers"]):
        layer = f"bert/encoder/layer_{index}"
        for projection in ("query", "key", "value"):
            shapes |= dense_shapes(f"{layer}/attention/self/{projection}", hidden, hidden)
        shapes |= dense_shapes(f"{layer}/attention/output/dense", hidden, hidden)
        shapes |= layer_norm_shapes(f"{layer}/attention/output/LayerNorm", hidden)
        shapes |= dense_shapes(f"{layer}/intermediate/dense", hidden, intermediate)
        shapes |= dense_shapes(f"{layer}/output/dense", intermediate, hidden)
        shapes |= layer_norm_shapes(f"{layer}/output/LayerNorm", hidden)
    return shapes | dense_shapes("bert/pooler/dense", hidden, hidden)


def pretraining_head_shapes(settings: dict) -> dict[str, tuple[int, ...]]:
    """The variables that Google's run_pretraining.py adds."""
    hidden = settings["hidden_size"]
    return {
        **dense_shapes("cls/predictions/transform/dense", hidden, hidden),
        **layer_norm_shapes("cls/predictions/transform/LayerNorm", hidden),
        "cls/predictions/output_bias": (settings["vocab_size"],),
        "cls/seq_relationship/output_weights": (2, hidden),
        "cls/seq_relationship/output_bias": (2,),
    }


def dense_shapes(name: str, inputs: int, outputs: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}/kernel": (inputs, outputs), f"{name}/bias": (outputs,)}


def layer_norm_shapes(name: str, size: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}/gamma": (size,), f"{name}/beta": (size,)}


def random_value(randomness: np.random.Generator, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Biases and gains too, unlike in a fresh model, so that one left out or exchanged shows in the outputs."""
    return randomness.normal(float(name.endswith("gamma")), 0.3, tuple(shape)).astype(np.float32)


def random_inputs(randomness: np.random.Generator, vocab_size: int) -> dict[str, np.ndarray]:
    """Three pairs of texts, of 12, 9 and 5 tokens with their padding: int32 (3, 12)."""
    positions = np.arange(12)
    lengths, first_lengths = np.array([[12], [9], [5]]), np.array([[7], [3], [5]])
    mask = positions < lengths
    input_ids = np.where(mask, randomness.integers(len(SPECIAL_TOKENS), vocab_size, (3, 12)), 0)
    input_ids[:, 0] = SPECIAL_TOKENS.index("[CLS]")
    inputs = {
        "input_ids": input_ids,
        "attention_mask": mask,
        "token_type_ids": mask & (positions >= first_lengths),
    }
    return {name: value.astype(np.int32) for name, value in inputs.items()}


def save_variables(checkpoint: Path, values: dict[str, np.ndarray]) -> None:
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        for name, value in values.items():
            tf.compat.v1.get_variable(name, initializer=value, use_resource=False)
        session.run(tf.compat.v1.global_variables_initializer())
        saver = tf.compat.v1.train.Saver(save_relative_paths=True)
        saver.save(session, str(checkpoint), write_meta_graph=False)


def write_google_config(folder: Path, settings: dict) -> None:
    (folder / "bert_config.json").write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def write_vocabulary(folder: Path, tokens: list[str]) -> None:
    (folder / "vocab.txt").write_text("".join(token + "\n" for token in tokens), encoding="utf-8")


def new_folder(name: str) -> Path:
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


if __name__ == "__main__":
    main()

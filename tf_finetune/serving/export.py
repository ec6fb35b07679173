"""Checkpoint -> SavedModel with a raw-text and a token signature."""

from pathlib import Path

from tf_finetune.evaluation.classifier import Classifier


def save_model(classifier: Classifier, folder: Path) -> None:
    """Writes a SavedModel that answers for raw text and for tokens, batches padded to their own longest.

    Signatures:
        serving_default: `text` string [None] -> `label` string [None], `score` float32 [None],
            `probabilities` float32 [None, num_labels].
        tokens: int32 `input_ids`, `attention_mask`, `token_type_ids` [None, None] -> `logits`,
            `probabilities` float32 [None, num_labels].

    Args:
        classifier: a float32 model with its tokenizer.
        folder: an empty folder.
    """
    import tensorflow as tf

    from tf_finetune.text.in_graph import InGraphTokenizer

    tokenizer = InGraphTokenizer(
        classifier.tokenizer.vocabulary,
        special_tokens=classifier.tokenizer.special_tokens(),
        max_length=classifier.max_length,
        truncation=classifier.truncation,
        **classifier.tokenizer.normalizer_options(),
    )
    model, names = classifier.model, tf.constant(classifier.label_names)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "text")])
    def serving_default(text):
        ids = tokenizer(text)
        lengths = ids.row_lengths()
        longest = tf.maximum(tf.reduce_max(lengths), 1)  # an empty batch has no longest text
        input_ids = ids.to_tensor(shape=tf.stack([-1, longest]))
        logits = _logits(model, input_ids, tf.sequence_mask(lengths, longest, dtype=tf.int32))
        probabilities = tf.nn.softmax(logits)
        return {
            "label": tf.gather(names, tf.argmax(probabilities, axis=-1)),
            "score": tf.reduce_max(probabilities, axis=-1),
            "probabilities": probabilities,
        }

    token_names = ("input_ids", "attention_mask", "token_type_ids")

    @tf.function(input_signature=[tf.TensorSpec([None, None], tf.int32, name) for name in token_names])
    def tokens(input_ids, attention_mask, token_type_ids):
        logits = _logits(model, input_ids, attention_mask, token_type_ids)
        return {"logits": logits, "probabilities": tf.nn.softmax(logits)}

    # Tracking the Keras model itself would save a graph whose restore op writes to copies: it answers in
    # Python TensorFlow and is dead in TensorFlow Serving. The plain variables restore everywhere.
    module = tf.Module()
    module.weights = [variable.value for variable in model.variables]
    module.signatures_kept = (serving_default, tokens)
    signatures = {"serving_default": serving_default, "tokens": tokens}
    tf.saved_model.save(module, str(folder), signatures=signatures)


def _logits(model, input_ids, attention_mask, token_type_ids=None):
    inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
    if token_type_ids is not None:
        inputs["token_type_ids"] = token_type_ids
    return model(inputs, training=False)


def versions(export: Path) -> list[int]:
    """The versions published in an export folder, ascending: TensorFlow Serving wants plain integers."""
    if not export.is_dir():
        return []
    return sorted(int(path.name) for path in export.iterdir() if path.is_dir() and path.name.isdecimal())

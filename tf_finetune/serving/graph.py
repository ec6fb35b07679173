"""What an export computes: from texts, or from tokens, to the answer of a classifier."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from tf_finetune.config import ProblemType
from tf_finetune.evaluation.metrics import THRESHOLD

if TYPE_CHECKING:
    import tensorflow as tf

    from tf_finetune.evaluation.classifier import Classifier
    from tf_finetune.text.in_graph import InGraphTokenizer

TOKEN_INPUTS = ("input_ids", "attention_mask", "token_type_ids")

# Tokens computed at once, padding included. Enough for a matrix product to be fast, few enough for its results to stay
# in a processor's cache and for texts of other lengths to come into other groups.
GROUP_TOKENS = 1024


def text_inputs(pairs: bool) -> tuple[str, ...]:
    """The inputs of `serving_default`."""
    return ("text", "text_pair") if pairs else ("text",)


def outputs(problem_type: ProblemType) -> tuple[str, ...]:
    """What `serving_default` answers.

    One class a text: `label` string [None], `score` float32 [None] (its probability) and `probabilities` float32
    [None, num_labels]. Several (multi-label): `labels` string [None, num_labels], "" where a class is not answered,
    and `probabilities`. A number: `score` float32 [None].
    """
    if problem_type is ProblemType.REGRESSION:
        return ("score",)
    if problem_type is ProblemType.MULTI_LABEL_CLASSIFICATION:
        return ("labels", "probabilities")
    return ("label", "score", "probabilities")


def text_signature(classifier: "Classifier", tokenizer: "InGraphTokenizer", *, pairs: bool) -> Callable:
    """`serving_default`: `text` string [None], and `text_pair` where pairs are classified -> what `outputs` says."""
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name) for name in text_inputs(pairs)])
    def serving_default(*texts):
        ids, type_ids = tokenizer.encode_pairs(*texts) if pairs else (tokenizer(*texts), None)
        logits = logits_by_length(classifier.model, ids, type_ids, num_labels=len(classifier.label_names))
        return _answer(logits, classifier)

    return serving_default


def token_signature(classifier: "Classifier") -> Callable:
    """`tokens`: int32 TOKEN_INPUTS [None, None] -> `logits` float32 [None, num_labels] and, but for a regression,
    `probabilities`, the same."""
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec([None, None], tf.int32, name) for name in TOKEN_INPUTS])
    def tokens(input_ids, attention_mask, token_type_ids):
        for other in (attention_mask, token_type_ids):  # one of length 1 would be taken for all tokens
            tf.debugging.assert_equal(tf.shape(other), tf.shape(input_ids), "the inputs must have the same shape")
        logits = classifier.model(input_ids, attention_mask, token_type_ids, training=False)
        answer = _answer(logits, classifier)
        return {"logits": logits} | {name: answer[name] for name in answer if name == "probabilities"}

    return tokens


def logits_by_length(
    model: Callable,
    ids: "tf.RaggedTensor",
    type_ids: "tf.RaggedTensor | None",
    *,
    num_labels: int,
    tokens: int = GROUP_TOKENS,
) -> "tf.Tensor":
    """Logits float32 (texts, num_labels), in the order of the texts.

    The longest texts come first, as many at once as `tokens` allow, padded to the longest among them: of a batch of
    mixed lengths hardly a token computed is padding.

    Args:
        model: a TFBertForSequenceClassification.
        ids: int32 (texts, tokens), none empty.
        type_ids: of the same shape; None means all 0.
        num_labels: of the model.
        tokens: computed at once at most, padding included, and one text at least.
    """
    import tensorflow as tf

    lengths = tf.cast(ids.row_lengths(), tf.int32)
    texts = tf.size(lengths)
    order = tf.argsort(lengths, direction="DESCENDING")
    lengths, starts = tf.gather(lengths, order), tf.gather(tf.cast(ids.row_splits, tf.int32), order)

    def group(first, logits):
        longest = lengths[first]
        rows = slice(first, first + tf.clip_by_value(tokens // longest, 1, texts - first))
        is_token = tf.sequence_mask(lengths[rows], longest)  # (texts of the group, tokens)
        place = tf.where(is_token, starts[rows, tf.newaxis] + tf.range(longest), 0)
        mask = tf.cast(is_token, tf.int32)
        inputs = {"input_ids": tf.gather(ids.flat_values, place) * mask, "attention_mask": mask}
        if type_ids is not None:
            inputs["token_type_ids"] = tf.gather(type_ids.flat_values, place) * mask
        answered = model(inputs, training=False)
        return first + tf.shape(answered)[0], tf.tensor_scatter_nd_update(logits, order[rows, tf.newaxis], answered)

    none_yet = tf.zeros([texts, num_labels])
    _, logits = tf.while_loop(lambda first, _: first < texts, group, (0, none_yet), parallel_iterations=1)
    return logits


def _answer(logits: "tf.Tensor", classifier: "Classifier") -> dict[str, "tf.Tensor"]:
    import tensorflow as tf

    names = tf.constant(classifier.label_names)
    if classifier.problem_type is ProblemType.REGRESSION:
        return {"score": logits[:, 0]}
    if classifier.problem_type is ProblemType.MULTI_LABEL_CLASSIFICATION:
        probabilities = tf.sigmoid(logits)
        return {"labels": tf.where(probabilities >= THRESHOLD, names, ""), "probabilities": probabilities}
    probabilities = tf.nn.softmax(logits)
    return {
        "label": tf.gather(names, tf.argmax(probabilities, axis=-1)),
        "score": tf.reduce_max(probabilities, axis=-1),
        "probabilities": probabilities,
    }

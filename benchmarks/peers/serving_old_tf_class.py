"""The TensorFlow class that `transformers` removed, as its SavedModel would run: one graph, padded to the longest."""

import os

os.environ["TF_USE_LEGACY_KERAS"] = "1"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import serving_protocol  # noqa: E402
import tensorflow as tf  # noqa: E402
import transformers  # noqa: E402


def load(job):
    tokenizer = transformers.AutoTokenizer.from_pretrained(job["checkpoint"])
    model = transformers.TFBertForSequenceClassification.from_pretrained(job["checkpoint"], use_safetensors=False)
    ids = tf.TensorSpec([None, None], tf.int32)

    @tf.function(input_signature=[ids, ids, ids])
    def run(input_ids, attention_mask, token_type_ids):
        logits = model(input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids).logits
        return tf.nn.softmax(logits)

    def answer(texts):
        length = serving_protocol.MOST_TOKENS
        inputs = tokenizer(texts, padding=True, truncation=True, max_length=length, return_tensors="tf")
        return run(**inputs).numpy()

    return answer


serving_protocol.serve(load)

"""keras-hub's BertTextClassifier on raw text: padded to the longest text it may be asked, as its preprocessor does."""

import os

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras_hub  # noqa: E402
import protocol  # noqa: E402
import serving_protocol  # noqa: E402
import tensorflow as tf  # noqa: E402


def load(job):
    tokenizer = keras_hub.models.BertTokenizer.from_preset(job["checkpoint"])
    preprocessor = keras_hub.models.BertTextClassifierPreprocessor(
        tokenizer, sequence_length=serving_protocol.MOST_TOKENS
    )
    backbone = keras_hub.models.BertBackbone.from_preset(job["checkpoint"])
    classifier = keras_hub.models.BertTextClassifier(backbone=backbone, preprocessor=preprocessor, num_classes=2)
    values = protocol.classifier_weights(job["checkpoint"])
    for variable, value in zip(classifier.output_dense.weights, values, strict=True):
        variable.assign(value)
    run = tf.function(lambda texts: tf.nn.softmax(classifier(preprocessor(texts))), autograph=False)
    return lambda texts: run(tf.constant(texts)).numpy()


serving_protocol.serve(load)

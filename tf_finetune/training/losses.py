"""Losses that Keras has not."""

import keras
from keras import ops


@keras.saving.register_keras_serializable("tf_finetune")
class SmoothedCrossentropy(keras.losses.Loss):
    """Cross-entropy of logits (n, classes) with class numbers (n,), of which a share is spread over all classes.

    The numbers are those of PyTorch's `CrossEntropyLoss(label_smoothing=...)` (Szegedy et al. 2016,
    https://arxiv.org/abs/1512.00567).

    Args:
        label_smoothing: the share, at least 0 and below 1.
    """

    def __init__(self, label_smoothing: float, *, name: str = "smoothed_crossentropy", **kwargs):
        super().__init__(name=name, **kwargs)
        self.label_smoothing = label_smoothing

    def call(self, y_true, y_pred):
        log_probabilities = ops.log_softmax(y_pred, axis=-1)
        classes = ops.cast(ops.reshape(y_true, (-1, 1)), "int32")
        of_label = ops.take_along_axis(log_probabilities, classes, axis=-1)[:, 0]
        return -(1 - self.label_smoothing) * of_label - self.label_smoothing * ops.mean(log_probabilities, axis=-1)

    def get_config(self):
        return {**super().get_config(), "label_smoothing": self.label_smoothing}

"""What both keras-hub peers share: its BertTextClassifier with its own preprocessor, under our clock."""

import os

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras  # noqa: E402
import keras_hub  # noqa: E402
import numpy as np  # noqa: E402
import protocol  # noqa: E402
import tensorflow as tf  # noqa: E402


class WarmupLinearDecay(keras.optimizers.schedules.LearningRateSchedule):
    """Linear from 0 to the peak over a tenth of the steps, then linear to 0: Keras has none."""

    def __init__(self, peak: float, steps: int):
        self.peak, self.steps, self.warmup = peak, steps, max(1, steps // 10)

    def __call__(self, step):
        step = keras.ops.cast(step, "float32")
        fall = (self.steps - step) / max(1, self.steps - self.warmup)
        return self.peak * keras.ops.minimum(step / self.warmup, keras.ops.maximum(fall, 0.0))

    def get_config(self):
        return {"peak": self.peak, "steps": self.steps}


def run(job: protocol.Job, *, tight: bool, jit_compile: bool | str) -> None:
    """Does a job.

    Args:
        job: what is measured.
        tight: pad to the longest text there is, instead of to the longest there may be.
        jit_compile: of `compile`.
    """
    keras.utils.set_random_seed(job.seed)
    keras.config.set_dtype_policy("mixed_bfloat16" if job.precision == "bfloat16" else "float32")
    texts, labels = protocol.read_texts(job.train)
    tokenizer = keras_hub.models.BertTokenizer.from_preset(job.checkpoint)
    length = longest(tokenizer, texts, job) if tight else job.max_length
    classifier = build(tokenizer, job, sequence_length=length)
    dataset = tf.data.Dataset.from_tensor_slices((texts, labels)).shuffle(len(texts), seed=job.seed)
    dataset = dataset.batch(job.batch_size).prefetch(tf.data.AUTOTUNE)
    compile_for(classifier, job, steps=job.epochs * len(dataset), jit_compile=jit_compile)
    rows = [min(job.batch_size, len(texts) - start) for start in range(0, len(texts), job.batch_size)]
    clock = protocol.StepClock(job, rows, [length] * len(rows))
    if job.for_speed:
        result = measure_speed(classifier, dataset, clock, job)
        tokenised = protocol.per_second(lambda: preprocess(classifier.preprocessor, texts), len(texts))
        result["tokenised_per_second"] = tokenised
    else:
        result = measure_accuracy(classifier, dataset, clock, job)
    protocol.print_result(result)


def longest(tokenizer: keras_hub.models.BertTokenizer, texts: list[str], job: protocol.Job) -> int:
    """Tokens of the longest text, [CLS] and [SEP] included, within the job's limit."""
    return min(job.max_length, 2 + max(len(ids) for ids in tokenizer(texts)))


def build(tokenizer, job: protocol.Job, *, sequence_length: int) -> keras_hub.models.BertTextClassifier:
    """The classifier with the checkpoint's weights, its head among them."""
    classifier = keras_hub.models.BertTextClassifier(
        backbone=keras_hub.models.BertBackbone.from_preset(job.checkpoint),
        preprocessor=keras_hub.models.BertTextClassifierPreprocessor(tokenizer, sequence_length=sequence_length),
        num_classes=2,
    )
    for variable, value in zip(
        classifier.output_dense.weights, protocol.classifier_weights(job.checkpoint), strict=True
    ):
        variable.assign(value)
    return classifier


def compile_for(classifier, job: protocol.Job, *, steps: int, jit_compile: bool | str) -> None:
    optimizer = keras.optimizers.AdamW(
        WarmupLinearDecay(job.learning_rate, steps), weight_decay=0.01, epsilon=1e-8, global_clipnorm=1.0
    )
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    classifier.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=jit_compile)


def preprocess(preprocessor, texts: list[str]) -> None:
    """All texts to padded ids, as `fit` has it done: in tf.data."""
    dataset = tf.data.Dataset.from_tensor_slices(texts).batch(64).map(preprocessor, num_parallel_calls=tf.data.AUTOTUNE)
    for _ in dataset.prefetch(tf.data.AUTOTUNE):
        pass


def measure_speed(classifier, dataset: tf.data.Dataset, clock: protocol.StepClock, job: protocol.Job) -> dict:
    history = classifier.fit(dataset, verbose=0, callbacks=[protocol.stopper(keras.callbacks.Callback, clock)])
    result = {"first_step_s": clock.first_step_s, **clock.speed(), "peak_bytes": protocol.peak_bytes()}
    texts = protocol.evenly(protocol.read_texts(job.validation)[0], job.evaluation_examples)
    size = max(8, job.batch_size)
    evaluated = protocol.per_second_when_warm(lambda: classifier.predict(texts, batch_size=size, verbose=0), len(texts))
    return {**result, "loss": history.history["loss"][-1], "evaluated_per_second": evaluated}


def measure_accuracy(classifier, dataset: tf.data.Dataset, clock: protocol.StepClock, job: protocol.Job) -> dict:
    texts, labels = protocol.read_texts(job.validation)
    validations = protocol.Validations(job)
    for epoch in range(job.epochs):
        options = {"initial_epoch": epoch, "epochs": epoch + 1, "verbose": 0}
        classifier.fit(dataset, callbacks=[protocol.stopper(keras.callbacks.Callback, clock)], **options)
        if clock.out_of_time:
            break
        logits = classifier.predict(texts, batch_size=max(8, job.batch_size), verbose=0)
        validations.add(np.asarray(logits, np.float32), labels)
    return {**validations.result(), "peak_bytes": protocol.peak_bytes()}

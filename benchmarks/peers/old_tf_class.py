"""The TensorFlow class that `transformers` removed in version 5, as its tutorials use it: all padded, Keras 2."""

import os

os.environ["TF_USE_LEGACY_KERAS"] = "1"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import protocol  # noqa: E402
import tensorflow as tf  # noqa: E402
import tf_keras  # noqa: E402
import transformers  # noqa: E402


def main() -> None:
    job = protocol.read_job()
    tf_keras.utils.set_random_seed(job.seed)
    tf_keras.mixed_precision.set_global_policy("mixed_bfloat16" if job.precision == "bfloat16" else "float32")
    tokenizer = transformers.AutoTokenizer.from_pretrained(job.checkpoint)
    model = transformers.TFBertForSequenceClassification.from_pretrained(job.checkpoint, use_safetensors=False)
    texts, labels = protocol.read_texts(job.train)
    found: list = []
    tokenised = protocol.per_second(lambda: found.append(tokenise(tokenizer, texts, job)), len(texts))
    dataset = tf.data.Dataset.from_tensor_slices((dict(found[0]), labels)).shuffle(len(texts), seed=job.seed)
    dataset = dataset.batch(job.batch_size).prefetch(tf.data.AUTOTUNE)
    compile_for(model, job, steps=job.epochs * len(dataset))
    rows = [min(job.batch_size, len(texts) - start) for start in range(0, len(texts), job.batch_size)]
    clock = protocol.StepClock(job, rows, [job.max_length] * len(rows))
    measure = measure_speed if job.for_speed else measure_accuracy
    protocol.print_result({"tokenised_per_second": tokenised, **measure(model, tokenizer, dataset, clock, job)})


def tokenise(tokenizer, texts: list[str], job: protocol.Job) -> dict:
    return tokenizer(texts, padding="max_length", truncation=True, max_length=job.max_length, return_tensors="np")


def compile_for(model, job: protocol.Job, *, steps: int) -> None:
    optimizer, _ = transformers.create_optimizer(
        job.learning_rate, steps, steps // 10, weight_decay_rate=0.01, adam_global_clipnorm=1.0
    )
    model.compile(optimizer=optimizer, loss=tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True))


def logits_of(model, encoded, job: protocol.Job):
    return model.predict(dict(encoded), batch_size=max(8, job.batch_size), verbose=0).logits


def measure_speed(model, tokenizer, dataset: tf.data.Dataset, clock: protocol.StepClock, job: protocol.Job) -> dict:
    history = model.fit(dataset, verbose=0, callbacks=[protocol.stopper(tf_keras.callbacks.Callback, clock)])
    result = {"first_step_s": clock.first_step_s, **clock.speed(), "peak_bytes": protocol.peak_bytes()}
    texts = protocol.evenly(protocol.read_texts(job.validation)[0], job.evaluation_examples)
    asked = tokenise(tokenizer, texts, job)
    evaluated = protocol.per_second_when_warm(lambda: logits_of(model, asked, job), len(texts))
    return {**result, "loss": history.history["loss"][-1], "evaluated_per_second": evaluated}


def measure_accuracy(model, tokenizer, dataset: tf.data.Dataset, clock: protocol.StepClock, job: protocol.Job) -> dict:
    texts, labels = protocol.read_texts(job.validation)
    asked = tokenise(tokenizer, texts, job)
    validations = protocol.Validations(job)
    for epoch in range(job.epochs):
        options = {"initial_epoch": epoch, "epochs": epoch + 1, "verbose": 0}
        model.fit(dataset, callbacks=[protocol.stopper(tf_keras.callbacks.Callback, clock)], **options)
        if clock.out_of_time:
            break
        validations.add(logits_of(model, asked, job), labels)
    return {**validations.result(), "peak_bytes": protocol.peak_bytes()}


if __name__ == "__main__":
    main()

"""tf_finetune as its commands use it: batches of like length, mixed bfloat16, `model.fit`."""

import os

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras  # noqa: E402
import numpy as np  # noqa: E402
import protocol  # noqa: E402

from tf_finetune import runtime  # noqa: E402
from tf_finetune.bert.model import TFBertForSequenceClassification  # noqa: E402
from tf_finetune.config import Truncation  # noqa: E402
from tf_finetune.data.order import BatchOrder, training_order  # noqa: E402
from tf_finetune.data.pipeline import batches  # noqa: E402
from tf_finetune.data.tokenized import TokenizedExamples  # noqa: E402
from tf_finetune.evaluation.classifier import Classifier  # noqa: E402
from tf_finetune.text.tokenizer import Tokenizer  # noqa: E402
from tf_finetune.training.optimizer import create_optimizer  # noqa: E402


def main() -> None:
    job = protocol.read_job()
    keras.utils.set_random_seed(job.seed)
    with runtime.precision_policy("mixed_bfloat16" if job.precision == "bfloat16" else "float32"):
        model = TFBertForSequenceClassification.from_pretrained(job.checkpoint)
    tokenizer = Tokenizer(job.checkpoint)
    classifier = Classifier(model, tokenizer, max_length=job.max_length, truncation=Truncation.HEAD)
    texts, labels = protocol.read_texts(job.train)
    found: list = []
    tokenised = protocol.per_second(lambda: found.extend(classifier.encode(texts)[0]), len(texts))
    examples = TokenizedExamples.from_lists(found, labels)
    compile_for(model, job, steps=job.epochs * len(order_of(examples, job, epoch=0)))
    measure = measure_speed if job.for_speed else measure_accuracy
    protocol.print_result({"tokenised_per_second": tokenised, **measure(classifier, examples, job)})


def order_of(examples: TokenizedExamples, job: protocol.Job, *, epoch: int) -> BatchOrder:
    return training_order(
        examples.lengths, batch_size=job.batch_size, batch_tokens=job.batch_tokens, seed=job.seed, epoch=epoch
    )


def compile_for(model: keras.Model, job: protocol.Job, *, steps: int) -> None:
    optimizer, _ = create_optimizer(
        job.learning_rate, steps, steps // 10, weight_decay_rate=0.01, adam_global_clipnorm=1.0
    )
    loss = model.default_loss()
    metrics = [keras.metrics.SparseCategoricalAccuracy("accuracy")]
    model.compile(optimizer, loss, weighted_metrics=metrics, jit_compile=False)


def measure_speed(classifier: Classifier, examples: TokenizedExamples, job: protocol.Job) -> dict:
    order = in_spread_order(order_of(examples, job, epoch=0))
    clock = protocol.StepClock(job, order.sizes, order.widths)
    history = classifier.model.fit(
        batches(examples, order),
        shuffle=False,
        verbose=0,
        callbacks=[protocol.stopper(keras.callbacks.Callback, clock)],
    )
    result = {"first_step_s": clock.first_step_s, **clock.speed(), "peak_bytes": protocol.peak_bytes()}
    texts = protocol.evenly(protocol.read_texts(job.validation)[0], job.evaluation_examples)
    asked = TokenizedExamples.from_lists(classifier.encode(texts)[0], [0] * len(texts))
    evaluated = protocol.per_second_when_warm(lambda: classifier.logits_of(asked), len(texts))
    return {**result, "loss": history.history["loss"][-1], "evaluated_per_second": evaluated}


def in_spread_order(order: BatchOrder) -> BatchOrder:
    """The same batches, so that any beginning of them speaks for all."""
    drawn = protocol.spread_order(order.widths)
    rows = [order.examples[order.starts[i] : order.starts[i + 1]] for i in drawn]
    starts = np.cumsum([0, *(len(examples) for examples in rows)])
    return BatchOrder(examples=np.concatenate(rows), starts=starts, widths=order.widths[drawn])


def measure_accuracy(classifier: Classifier, examples: TokenizedExamples, job: protocol.Job) -> dict:
    """One `fit` an epoch, as `train` does it."""
    texts, labels = protocol.read_texts(job.validation)
    asked = TokenizedExamples.from_lists(classifier.encode(texts)[0], labels)
    validations = protocol.Validations(job)
    for epoch in range(job.epochs):
        order = order_of(examples, job, epoch=epoch)
        clock = protocol.StepClock(job, order.sizes, order.widths)
        options = {"initial_epoch": epoch, "epochs": epoch + 1, "shuffle": False, "verbose": 0}
        classifier.model.fit(
            batches(examples, order), callbacks=[protocol.stopper(keras.callbacks.Callback, clock)], **options
        )
        if clock.out_of_time:
            break
        validations.add(classifier.logits_of(asked), labels)
    return {**validations.result(), "peak_bytes": protocol.peak_bytes()}


if __name__ == "__main__":
    main()

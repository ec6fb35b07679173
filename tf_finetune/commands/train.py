"""`tf-finetune train`: a checkpoint and labelled text in, the best fine-tuned checkpoint out."""

import math
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from tf_finetune import runtime, settings
from tf_finetune.bert.architecture import BertArchitecture
from tf_finetune.bert.model import TFBertForSequenceClassification
from tf_finetune.config import ExperimentConfig
from tf_finetune.data import sources
from tf_finetune.data.order import evaluation_order, training_order
from tf_finetune.data.pipeline import TokenizedExamples, batches
from tf_finetune.errors import InputError, RunError
from tf_finetune.evaluation.classifier import Classifier
from tf_finetune.pretrained import local_checkpoint
from tf_finetune.text.tokenizer import Tokenizer
from tf_finetune.training import checkpoints
from tf_finetune.training.callbacks import MetricsLog, Progress
from tf_finetune.training.optimizer import WarmupLinearDecay, create_optimizer
from tf_finetune.workdir import Workdir, write_json

if TYPE_CHECKING:
    import tensorflow as tf

# Asked before and after training, so that one sees what was learnt.
REVIEW_TEXTS = ("The movie was absolutely wonderful, full of joy.", "The movie was terrible and boring.")


def train(config: ExperimentConfig, workdir: str | Path, *, restart: bool = False) -> dict[str, Any]:
    """Fine-tunes a classifier and keeps the checkpoint with the best validation accuracy.

    Args:
        config: what to train, on what, how.
        workdir: where the run is kept; made when it is not there.
        restart: remove an earlier run from the workdir and start over.

    Returns:
        The content of best.json: checkpoint, epoch, step and validation metrics.

    Raises:
        InputError: a value, file or folder is not usable; the workdir then holds what it held before.
        RunError: the loss is not finite.
    """
    runtime.check_backend()
    config = settings.resolved(settings.validated(config))
    run = Workdir(workdir)
    run.check_free(restart=restart)
    keras.utils.set_random_seed(config.runtime.seed)
    policy = runtime.training_policy(config.runtime.precision)
    print(settings.to_text(config))
    print(f"runtime: {runtime.describe(policy)}", flush=True)

    splits = _load_splits(config)
    with runtime.precision_policy(policy):
        classifier = _build_classifier(config, splits.label_names)
    tokenized = {name: classifier.tokenize(s.texts, s.labels) for name, s in splits.examples.items()}
    _describe_data(tokenized, splits.label_names, config)
    steps_an_epoch = -(-len(tokenized["train"]) // config.train.batch_size)
    schedule = _compile(classifier.model, config, config.train.epochs * steps_an_epoch)
    validation = _evaluation_batches(tokenized["validation"], config)
    shown = REVIEW_TEXTS if config.data.source == "reviews" else splits.examples["validation"].texts[:2]
    print("before training:")
    untrained = _validate(classifier.model, validation)
    _show_answers(classifier, shown)

    run.create()
    run.check_free(restart=restart)  # another run may have come meanwhile
    run.clear()  # only now: the model has read the data and answered, so the earlier run is no longer needed
    write_json(run.config, settings.to_dict(config))
    log = MetricsLog(run.metrics)
    log.write(split="validation", epoch=-1, step=0, **untrained)
    began = time.perf_counter()
    best = _fit(classifier, tokenized["train"], validation, schedule, config, run, log)
    print(f"after training for {time.perf_counter() - began:.0f} s, validation included:")
    folder = run.best_checkpoint()
    _show_answers(Classifier.from_checkpoint(folder, **settings.classifier_options(config)), shown)
    print(
        f"best validation accuracy {best['validation']['accuracy']:.4f} at epoch {best['epoch'] + 1}, kept in {folder}"
    )
    return best


def _load_splits(config: ExperimentConfig) -> sources.Splits:
    splits = sources.load(**settings.source_options(config))
    if "train" not in splits.examples:
        raise InputError(
            "nothing to train on", where=config.data.source, expected="a train split", got=", ".join(splits.examples)
        )
    return splits


def _build_classifier(config: ExperimentConfig, label_names: tuple[str, ...]) -> Classifier:
    folder = local_checkpoint(config.model.checkpoint)
    architecture = BertArchitecture.from_folder(folder)
    longest = architecture.max_position_embeddings
    if config.data.max_length > longest:
        raise InputError(
            "texts would be longer than the checkpoint's positions",
            where="data.max_length",
            expected=f"at most {longest}",
            got=config.data.max_length,
        )
    tokenizer = Tokenizer(folder)
    if len(tokenizer.vocabulary) > architecture.vocab_size:
        raise InputError(
            "the tokenizer has more tokens than the model",
            where=folder,
            expected=f"at most {architecture.vocab_size}",
            got=len(tokenizer.vocabulary),
        )
    # A head that was trained for other labels answers for those; it would start this training off wrong.
    new_head = architecture.id2label != label_names
    model = TFBertForSequenceClassification.from_pretrained(
        config.model.checkpoint, id2label=list(label_names), new_head=new_head
    )
    return Classifier(model, tokenizer, **settings.classifier_options(config))


def _describe_data(
    tokenized: dict[str, TokenizedExamples], label_names: tuple[str, ...], config: ExperimentConfig
) -> None:
    sizes = ", ".join(f"{len(examples)} {name}" for name, examples in tokenized.items())
    lengths = tokenized["train"].lengths
    print(
        f"data: {config.data.source}: {sizes}; {len(label_names)} labels: {', '.join(label_names[:8])}"
        f"{' ...' if len(label_names) > 8 else ''}; tokens a text: mean {lengths.mean():.0f}, "
        f"longest {lengths.max()}",
        flush=True,
    )


def _fit(
    classifier: Classifier,
    examples: TokenizedExamples,
    validation: "tf.data.Dataset",
    schedule: WarmupLinearDecay,
    config: ExperimentConfig,
    run: Workdir,
    log: MetricsLog,
) -> dict[str, Any]:
    """One `model.fit` an epoch, because a public dataset must have a constant number of batches."""
    best, patience = {}, config.train.early_stopping_patience
    for epoch in range(config.train.epochs):
        step = _train_epoch(classifier.model, examples, schedule, config, log, epoch=epoch)
        began = time.perf_counter()
        result = _validate(classifier.model, validation, epoch=epoch)
        timing = {"seconds": time.perf_counter() - began}
        log.write(split="validation", epoch=epoch, step=step, **result, timing=timing)
        if not best or _score(result) > _score(best["validation"]):
            best = _keep_best(classifier, run, {"epoch": epoch, "step": step, "validation": result})
        elif patience and epoch - best["epoch"] >= patience:
            print(f"stopping early: no better validation since epoch {best['epoch'] + 1}")
            break
    return best


def _train_epoch(
    model: keras.Model,
    examples: TokenizedExamples,
    schedule: WarmupLinearDecay,
    config: ExperimentConfig,
    log: MetricsLog,
    *,
    epoch: int,
) -> int:
    """Returns the number of optimizer steps done by its end."""
    order = training_order(examples.lengths, batch_size=config.train.batch_size, seed=config.runtime.seed, epoch=epoch)
    progress = Progress(
        log,
        schedule=schedule,
        batch_sizes=np.diff(order.starts).tolist(),
        first_step=epoch * len(order),
        every=config.train.log_every_steps,
    )
    dataset = batches(examples, order)
    model.fit(dataset, initial_epoch=epoch, epochs=epoch + 1, shuffle=False, verbose=0, callbacks=[progress])
    return (epoch + 1) * len(order)


def _validate(model: keras.Model, dataset: "tf.data.Dataset", *, epoch: int | None = None) -> dict[str, float]:
    result = model.evaluate(dataset, verbose=0, return_dict=True)
    if not math.isfinite(result["loss"]):
        raise RunError(f"the validation loss is {result['loss']}: a lower learning rate may help")
    when = "" if epoch is None else f"epoch {epoch + 1}"
    print(f"{when}  validation accuracy {result['accuracy']:.4f}  loss {result['loss']:.4f}", flush=True)
    return result


def _compile(model: keras.Model, config: ExperimentConfig, num_train_steps: int) -> WarmupLinearDecay:
    chosen = config.optimizer
    warmup = chosen.warmup_steps or int(chosen.warmup_proportion * num_train_steps)
    if warmup > num_train_steps:
        raise InputError(
            "the warmup is longer than the training",
            where="optimizer.warmup_steps",
            expected=f"at most {num_train_steps} (epochs * batches an epoch)",
            got=warmup,
        )
    optimizer, schedule = create_optimizer(
        chosen.learning_rate,
        num_train_steps,
        warmup,
        weight_decay_rate=chosen.weight_decay,
        adam_beta1=chosen.beta_1,
        adam_beta2=chosen.beta_2,
        adam_epsilon=chosen.epsilon,
        adam_global_clipnorm=chosen.max_grad_norm or None,
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    # No XLA: it would compile anew for every batch length.
    model.compile(optimizer, loss, metrics=["accuracy"], jit_compile=False)
    return schedule


def _evaluation_batches(examples: TokenizedExamples, config: ExperimentConfig):
    return batches(examples, evaluation_order(examples.lengths, batch_size=config.train.eval_batch_size))


def _score(result: dict[str, float]) -> tuple[float, float]:
    """What "best" means: the higher accuracy, and among equals the lower loss."""
    return result["accuracy"], -result["loss"]


def _keep_best(classifier: Classifier, run: Workdir, best: dict[str, Any]) -> dict[str, Any]:
    folder = checkpoints.save(classifier.model, classifier.tokenizer, run.checkpoints, step=best["step"])
    best = {"checkpoint": folder.name, **best}
    write_json(run.best, best)
    checkpoints.prune(run.checkpoints, keep=folder)
    return best


def _show_answers(classifier: Classifier, texts: Sequence[str]) -> None:
    for answer in classifier.answers(texts):
        print(f"  {textwrap.shorten(answer['text'], 80)!r} -> {answer['label']} ({answer['score']:.3f})", flush=True)

"""`tf-finetune train`: a checkpoint and labelled text in, the best fine-tuned checkpoint out."""

import time
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tf_finetune import runtime, settings
from tf_finetune.bert.architecture import BertArchitecture
from tf_finetune.bert.model import TFBertForSequenceClassification
from tf_finetune.config import ExperimentConfig
from tf_finetune.data import sources
from tf_finetune.data.order import evaluation_order, training_order
from tf_finetune.data.pipeline import TokenizedExamples, batches
from tf_finetune.errors import InputError
from tf_finetune.evaluation.classifier import Classifier
from tf_finetune.pretrained import local_checkpoint
from tf_finetune.text.tokenizer import Tokenizer
from tf_finetune.training import checkpoints
from tf_finetune.training.callbacks import MetricsLog, Progress
from tf_finetune.training.optimizer import WarmupLinearDecay, create_optimizer
from tf_finetune.workdir import Workdir, write_json

SHOWN_TEXTS = ("The movie was absolutely wonderful, full of joy.", "The movie was terrible and boring.")


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
    """
    config = settings.validated(config)
    run = Workdir(workdir)
    if run.has_run() and not restart:
        raise InputError(
            "the working directory already holds a run",
            where=run.path,
            expected="a new --workdir, or --restart to remove that run and start over",
        )
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

    run.create()  # from here on nothing the user gave can be wrong
    run.clear()
    write_json(run.config, settings.to_dict(config))
    best = _fit(classifier, tokenized, schedule, config, run)
    print(
        f"best validation accuracy {best['validation']['accuracy']:.4f} at epoch {best['epoch'] + 1}, "
        f"kept in {run.checkpoints / best['checkpoint']}"
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
    longest = BertArchitecture.from_folder(folder).max_position_embeddings
    if config.data.max_length > longest:
        raise InputError(
            "texts would be longer than the checkpoint's positions",
            where="data.max_length",
            expected=f"at most {longest}",
            got=config.data.max_length,
        )
    tokenizer = Tokenizer(folder)
    model = TFBertForSequenceClassification.from_pretrained(config.model.checkpoint, id2label=list(label_names))
    return Classifier(model, tokenizer, **settings.classifier_options(config))


def _describe_data(tokenized: dict[str, TokenizedExamples], label_names: tuple[str, ...], config) -> None:
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
    tokenized: dict[str, TokenizedExamples],
    schedule: WarmupLinearDecay,
    config: ExperimentConfig,
    run: Workdir,
) -> dict[str, Any]:
    """One `model.fit` an epoch, because a public dataset must have a constant number of batches."""
    log, patience = MetricsLog(run.metrics), config.train.early_stopping_patience
    validation = _evaluation_batches(tokenized["validation"], config)
    print("before training:")
    _validate(classifier.model, validation, log, epoch=-1, step=0)
    _show_answers(classifier)

    best, began = {}, time.perf_counter()
    for epoch in range(config.train.epochs):
        step = _train_epoch(classifier.model, tokenized["train"], schedule, config, log, epoch=epoch)
        result = _validate(classifier.model, validation, log, epoch=epoch, step=step)
        if not best or _score(result) > _score(best["validation"]):
            best = _keep_best(classifier, run, {"epoch": epoch, "step": step, "validation": result})
        elif patience and epoch - best["epoch"] >= patience:
            print(f"stopping early: no better validation since epoch {best['epoch'] + 1}")
            break
    print(f"after training, {time.perf_counter() - began:.0f} s:")
    _show_answers(classifier)
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


def _validate(model: keras.Model, dataset, log: MetricsLog, *, epoch: int, step: int) -> dict[str, float]:
    began = time.perf_counter()
    result = model.evaluate(dataset, verbose=0, return_dict=True)
    timing = {"seconds": time.perf_counter() - began}
    log.write(split="validation", epoch=epoch, step=step, **result, timing=timing)
    when = f"epoch {epoch + 1}  " if epoch >= 0 else "  "
    print(f"{when}validation accuracy {result['accuracy']:.4f}  loss {result['loss']:.4f}", flush=True)
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
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
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


def _show_answers(classifier: Classifier) -> None:
    for answer in classifier.answers(SHOWN_TEXTS):
        print(f"  {answer['text']!r} -> {answer['label']} ({answer['score']:.3f})", flush=True)

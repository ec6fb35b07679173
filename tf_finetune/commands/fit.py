"""The training itself, once `train` has gathered its inputs: the half that needs TensorFlow."""

import math
import tempfile
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from tf_finetune import json_files, runtime, settings
from tf_finetune.bert import tiny
from tf_finetune.bert.architecture import BertArchitecture
from tf_finetune.bert.model import TFBertForSequenceClassification
from tf_finetune.config import ExperimentConfig
from tf_finetune.data import sources
from tf_finetune.data.order import evaluation_order, training_order
from tf_finetune.data.pipeline import batches
from tf_finetune.data.tokenized import TokenizedExamples
from tf_finetune.errors import InputError, RunError
from tf_finetune.evaluation.classifier import Classifier
from tf_finetune.text.tokenizer import Tokenizer
from tf_finetune.training import checkpoints
from tf_finetune.training.callbacks import MetricsLog, Progress
from tf_finetune.training.optimizer import WarmupLinearDecay, create_optimizer
from tf_finetune.workdir import Workdir

if TYPE_CHECKING:
    import tensorflow as tf

# Asked before and after training, so that one sees what was learnt.
REVIEW_TEXTS = ("The movie was absolutely wonderful, full of joy.", "The movie was terrible and boring.")
# Rows a vocabulary is padded with so that matrix products fit the hardware; more missing tokens mean another tokenizer.
VOCABULARY_PADDING = 128


def fit(
    config: ExperimentConfig,
    splits: sources.Splits,
    checkpoint: Path | None,
    run: Workdir,
    *,
    restart: bool,
    num_train_steps: int | None = None,
) -> dict[str, Any]:
    """Trains, and keeps the best checkpoint in the workdir.

    Args:
        config: with its places pinned.
        splits: train and validation at least.
        checkpoint: the folder of the pretrained model; None means random-tiny.
        run: where the results go.
        restart: whether an earlier run there is replaced.
        num_train_steps: what the learning rate is scheduled for; None means the steps there are.

    Returns:
        The content of best.json.
    """
    keras.utils.set_random_seed(config.runtime.seed)
    policy = runtime.training_policy(config.runtime.precision)
    print(f"runtime: {runtime.describe(policy)}", flush=True)
    with runtime.precision_policy(policy):
        classifier = build_classifier(config, splits.label_names, checkpoint)
    tokenized = {name: classifier.tokenize(examples) for name, examples in splits.examples.items()}
    _describe_data(tokenized, splits.label_names, config)
    steps_an_epoch = -(-len(tokenized["train"]) // config.train.batch_size)
    schedule = _compile(classifier.model, config, num_train_steps or config.train.epochs * steps_an_epoch)
    validation = _evaluation_batches(tokenized["validation"], config)
    shown = REVIEW_TEXTS if config.data.source == "reviews" else splits.examples["validation"].texts[:2]
    print("before training:")
    untrained = _validate(classifier.model, validation)
    _show_answers(classifier, shown)

    run.create()
    run.check_free(settings.to_dict(config), restart=restart)  # another run may have come meanwhile
    run.clear()  # only now: the model has read the data and answered, so the earlier run is no longer needed
    json_files.write(run.config, settings.to_dict(config))
    log = MetricsLog(run.metrics, run.tensorboard)
    log.write(split="validation", epoch=-1, step=0, **untrained)
    began = time.perf_counter()
    best = _fit_epochs(classifier, tokenized["train"], validation, schedule, config, run, log)
    print(f"after training for {time.perf_counter() - began:.0f} s, validation included:")
    trained = Classifier.from_checkpoint(run.best_checkpoint(), **settings.classifier_options(config))
    _show_answers(trained, shown)
    return best


def build_classifier(config: ExperimentConfig, label_names: tuple[str, ...], checkpoint: Path | None) -> Classifier:
    """The pretrained model with a head for these labels, and its tokenizer."""
    if checkpoint is None:
        with tempfile.TemporaryDirectory() as folder:
            tiny.write_random_checkpoint(Path(folder))
            runtime.warn("the model is random and tiny: it tries the road out, and learns next to nothing")
            return build_classifier(config, label_names, Path(folder))
    architecture, tokenizer = BertArchitecture.from_folder(checkpoint), Tokenizer(checkpoint)
    _check_vocabulary(len(tokenizer.vocabulary), architecture.vocab_size, checkpoint)
    # A head that was trained for other labels answers for those; it would start this training off wrong.
    new_head = architecture.id2label != label_names
    model = TFBertForSequenceClassification.from_pretrained(checkpoint, id2label=list(label_names), new_head=new_head)
    return Classifier(model, tokenizer, **settings.classifier_options(config))


def _check_vocabulary(tokens: int, rows: int, checkpoint: Path) -> None:
    if tokens > rows:
        raise InputError(
            "the tokenizer has more tokens than the model", where=checkpoint, expected=f"at most {rows}", got=tokens
        )
    if tokens <= rows - VOCABULARY_PADDING:
        runtime.warn(
            f"the tokenizer has {tokens} tokens and the model {rows}: are both of the same checkpoint? ({checkpoint})"
        )


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


def _fit_epochs(
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
            best = {"epoch": epoch, "step": step, "validation": result}
            best = _keep_best(classifier, run, best, base=config.model.checkpoint)
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
    if warmup > num_train_steps:
        _warn_of_the_warmup(schedule, config)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    # No XLA: it would compile anew for every batch length.
    model.compile(optimizer, loss, metrics=["accuracy"], jit_compile=False)
    return schedule


def _warn_of_the_warmup(schedule: WarmupLinearDecay, config: ExperimentConfig) -> None:
    steps, share = schedule.num_train_steps, config.optimizer.warmup_proportion
    runtime.warn(
        f"the warmup of {schedule.num_warmup_steps} steps is longer than the training of {steps}: the learning rate "
        f"only rises, to {float(schedule(steps - 1)):.1e} and never to {schedule.peak_learning_rate:.1e}; "
        f"--config.optimizer.warmup_steps=0 warms up for {int(share * steps)} steps instead, a share of {share}"
    )


def _evaluation_batches(examples: TokenizedExamples, config: ExperimentConfig):
    return batches(examples, evaluation_order(examples.lengths, batch_size=config.train.eval_batch_size))


def _score(result: dict[str, float]) -> tuple[float, float]:
    """What "best" means: the higher accuracy, and among equals the lower loss."""
    return result["accuracy"], -result["loss"]


def _keep_best(classifier: Classifier, run: Workdir, best: dict[str, Any], *, base: str) -> dict[str, Any]:
    folder = checkpoints.save(classifier.model, classifier.tokenizer, run.checkpoints, step=best["step"], base=base)
    best = {"checkpoint": folder.name, **best}
    json_files.write(run.best, best)
    checkpoints.prune(run.checkpoints, keep=folder)
    return best


def _show_answers(classifier: Classifier, texts: Sequence[str]) -> None:
    for answer in classifier.answers(texts):
        print(f"  {textwrap.shorten(answer['text'], 80)!r} -> {answer['label']} ({answer['score']:.3f})", flush=True)

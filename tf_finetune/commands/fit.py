"""The training itself, once `train` has gathered its inputs: the half that needs TensorFlow."""

import dataclasses
import tempfile
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tf_finetune import json_files, runtime, settings
from tf_finetune.bert import tiny
from tf_finetune.bert.architecture import BertArchitecture
from tf_finetune.bert.flops import step_flops
from tf_finetune.bert.model import TFBertForSequenceClassification
from tf_finetune.commands import batch_memory
from tf_finetune.config import ClassWeights, ExperimentConfig, ProblemType
from tf_finetune.data import sources
from tf_finetune.data.order import BatchOrder, shape_set, training_order
from tf_finetune.data.pipeline import batches, timed
from tf_finetune.data.tokenized import TokenizedExamples
from tf_finetune.errors import InputError, RunError
from tf_finetune.evaluation.classifier import Classifier
from tf_finetune.evaluation.metrics import headline, metrics_of, score
from tf_finetune.native import compiled
from tf_finetune.text.tokenizer import Tokenizer
from tf_finetune.training import checkpoints
from tf_finetune.training.callbacks import MetricsLog, Progress
from tf_finetune.training.cost import CostMeter, EpochWork
from tf_finetune.training.optimizer import WarmupLinearDecay, create_optimizer
from tf_finetune.workdir import Workdir

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
    compiled.use(config.runtime.compiled)
    print(f"runtime: {runtime.describe(policy)}; operations {compiled.state()}", flush=True)
    with runtime.precision_policy(policy):
        classifier = build_classifier(config, splits, checkpoint)
    tokenized = {name: classifier.tokenize(examples) for name, examples in splits.examples.items()}
    tokenized["train"] = weighted(tokenized["train"], config, len(splits.label_names))
    _describe_data(tokenized, splits, config)
    chosen = batch_memory.with_budget(config, tokenized["train"].lengths, classifier.model.architecture)
    batch_memory.warn_of_too_large(chosen, tokenized["train"].lengths, classifier.model.architecture)
    if config.train.gradient_checkpointing:
        classifier.model.gradient_checkpointing_enable()
    steps = num_train_steps or sum(
        len(_training_order(tokenized["train"], chosen, epoch)) for epoch in range(config.train.epochs)
    )
    schedule = _compile(classifier, config, steps)
    shown = _shown(splits, config)
    print("before training:")
    began = time.perf_counter()
    untrained = _validate(classifier, tokenized["validation"])
    meter = _cost_meter(classifier, policy, config, seconds_between=time.perf_counter() - began)
    _show_answers(classifier, shown)

    run.create()
    run.check_free(settings.to_dict(config), restart=restart)  # another run may have come meanwhile
    run.clear()  # only now: the model has read the data and answered, so the earlier run is no longer needed
    # What was asked for, so that the same command finds its run again; a budget of tokens that was found by the free
    # memory is another one next time, and stands in best.json.
    json_files.write(run.config, settings.to_dict(config))
    log = MetricsLog(run.metrics, run.tensorboard)
    log.write(split="validation", epoch=-1, step=0, **untrained)
    began = time.perf_counter()
    best = _fit_epochs(classifier, tokenized, schedule, chosen, run, log, meter)
    print(f"after training for {time.perf_counter() - began:.0f} s, validation included:")
    trained = Classifier.from_checkpoint(run.best_checkpoint(), **settings.classifier_options(config))
    _show_answers(trained, shown)
    return best


def build_classifier(config: ExperimentConfig, splits: sources.Splits, checkpoint: Path | None) -> Classifier:
    """The pretrained model with a head for these labels, and its tokenizer."""
    if checkpoint is None:
        with tempfile.TemporaryDirectory() as folder:
            tiny.write_random_checkpoint(Path(folder))
            runtime.warn("the model is random and tiny: it tries the road out, and learns next to nothing")
            return build_classifier(config, splits, Path(folder))
    architecture, tokenizer = BertArchitecture.from_folder(checkpoint), Tokenizer(checkpoint)
    _check_vocabulary(len(tokenizer.vocabulary), architecture.vocab_size, checkpoint)
    # A head that was trained for other labels answers for those; it would start this training off wrong.
    new_head = architecture.id2label != splits.label_names or architecture.problem_type not in (
        None,
        splits.problem_type.value,
    )
    model = TFBertForSequenceClassification.from_pretrained(
        checkpoint, id2label=list(splits.label_names), new_head=new_head, problem_type=splits.problem_type.value
    )
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


def weighted(examples: TokenizedExamples, config: ExperimentConfig, num_labels: int) -> TokenizedExamples:
    """The training examples with their own and their classes' weights, scaled to a mean of 1.

    Raises:
        InputError: all weights are 0.
    """
    weights = examples.weights
    if config.train.class_weights is ClassWeights.BALANCED:
        counts = np.bincount(examples.labels, minlength=num_labels)
        of_classes = 1 / np.maximum(counts, 1)[examples.labels]
        weights = of_classes if weights is None else of_classes * weights
    if weights is None:
        return examples
    if not weights.any():
        raise InputError("all examples weigh nothing", where="data.weight_column", expected="a weight above 0")
    return dataclasses.replace(examples, weights=(weights / weights.mean(dtype=np.float64)).astype(np.float32))


def _describe_data(tokenized: dict[str, TokenizedExamples], splits: sources.Splits, config: ExperimentConfig) -> None:
    sizes, names = ", ".join(f"{len(examples)} {name}" for name, examples in tokenized.items()), splits.label_names
    labels = "labels that are numbers"
    if splits.problem_type is not ProblemType.REGRESSION:
        labels = f"{len(names)} labels: {', '.join(names[:8])}{' ...' if len(names) > 8 else ''}"
    lengths = tokenized["train"].lengths
    print(
        f"data: {config.data.source}: {sizes}; {labels}; "
        f"tokens a {'pair' if config.data.text_pair_column else 'text'}: mean {lengths.mean():.0f}, "
        f"longest {lengths.max()}",
        flush=True,
    )


def _shown(splits: sources.Splits, config: ExperimentConfig) -> tuple[Sequence[str], Sequence[str] | None]:
    """Texts, and their pairs, to be answered before and after training."""
    if config.data.source == "reviews":
        return REVIEW_TEXTS, None
    validation = splits.examples["validation"]
    return list(validation.texts[:2]), None if validation.text_pairs is None else list(validation.text_pairs[:2])


def _fit_epochs(
    classifier: Classifier,
    tokenized: dict[str, TokenizedExamples],
    schedule: WarmupLinearDecay,
    config: ExperimentConfig,
    run: Workdir,
    log: MetricsLog,
    meter: CostMeter,
) -> dict[str, Any]:
    """One `model.fit` an epoch, because a public dataset must have a constant number of batches."""
    best, patience, step = {}, config.train.early_stopping_patience, 0
    for epoch in range(config.train.epochs):
        order = _training_order(tokenized["train"], config, epoch)
        dataset, waited = timed(batches(tokenized["train"], order))
        progress = Progress(
            log,
            schedule=schedule,
            meter=meter,
            work=_work(order, tokenized["train"].lengths, classifier.model.architecture),
            waited=waited,
            first_step=step,
            every=config.train.log_every_steps,
        )
        options = {"initial_epoch": epoch, "epochs": epoch + 1}
        with batch_memory.answered(lambda order=order, work=progress: _no_room(config, order, work.batch)):
            classifier.model.fit(dataset, **options, shuffle=False, verbose=0, callbacks=[progress])
        step += len(order)
        began = time.perf_counter()
        result = _validate(classifier, tokenized["validation"], epoch=epoch)
        timing = {"seconds": time.perf_counter() - began}
        log.write(split="validation", epoch=epoch, step=step, **result, timing=timing)
        if not best or score(result, classifier.problem_type) > score(best["validation"], classifier.problem_type):
            best = {"epoch": epoch, "step": step, "validation": result}
            if config.train.batch_tokens > 0:
                best["batch_tokens"] = config.train.batch_tokens
            best = _keep_best(classifier, run, best, base=config.model.checkpoint)
        elif patience and epoch - best["epoch"] >= patience:
            print(f"stopping early: no better validation since epoch {best['epoch'] + 1}")
            break
        meter.seconds_between = time.perf_counter() - began
    return best


def _cost_meter(classifier: Classifier, policy: str, config: ExperimentConfig, *, seconds_between: float) -> CostMeter:
    sizes = classifier.model.architecture
    rate = runtime.matrix_rate(
        keras.DTypePolicy(policy).compute_dtype,
        hidden_size=sizes.hidden_size,
        intermediate_size=sizes.intermediate_size,
    )
    return CostMeter(epochs=config.train.epochs, matrix_rate=rate, seconds_between=seconds_between)


def _work(order: BatchOrder, lengths: np.ndarray, architecture: BertArchitecture) -> EpochWork:
    """What each batch of an epoch holds and computes."""
    return EpochWork(
        examples=order.sizes,
        tokens=order.useful_tokens(lengths),
        computed_tokens=order.rows * order.widths,
        flops=step_flops(architecture, batch_size=order.rows, length=order.widths),
    )


def _no_room(config: ExperimentConfig, order: BatchOrder, batch: int) -> str:
    texts, length = np.diff(order.starts)[batch], order.widths[batch]
    return batch_memory.in_training(config, int(texts), int(length))


def _training_order(examples: TokenizedExamples, config: ExperimentConfig, epoch: int) -> BatchOrder:
    lengths, chosen, shapes = examples.lengths, config.train, None
    if chosen.num_shapes:
        shapes = shape_set(lengths, num_shapes=chosen.num_shapes, longest=config.data.max_length)
    return training_order(
        lengths,
        batch_size=chosen.batch_size,
        batch_tokens=None if chosen.batch_tokens < 0 else chosen.batch_tokens,
        shapes=shapes,
        seed=config.runtime.seed,
        epoch=epoch,
    )


def _validate(classifier: Classifier, examples: TokenizedExamples, *, epoch: int | None = None) -> dict[str, float]:
    """The metrics that are plain numbers, in the precision of training."""
    with batch_memory.answered(lambda: batch_memory.in_validation(classifier.batch_size)):
        logits = classifier.logits_of(examples)
    if not np.isfinite(logits).all():
        raise RunError("the validation loss is not finite: a lower learning rate may help")
    metrics = metrics_of(logits, examples.labels, classifier.problem_type)
    when = "" if epoch is None else f"epoch {epoch + 1}"
    print(f"{when}  validation {headline(metrics)}  loss {metrics['loss']:.4f}", flush=True)
    return {name: value for name, value in metrics.items() if isinstance(value, float)}


def _compile(classifier: Classifier, config: ExperimentConfig, num_train_steps: int) -> WarmupLinearDecay:
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
    metrics = None
    if classifier.problem_type is ProblemType.SINGLE_LABEL_CLASSIFICATION:
        # By its class: from the word alone Keras would make it within the first step, and trace that twice.
        metrics = [keras.metrics.SparseCategoricalAccuracy("accuracy")]
    # XLA compiles anew for every batch length, so only where these are few; on a CPU our own operations are faster.
    with_xla = bool(config.train.num_shapes and runtime.gpus())
    classifier.model.compile(optimizer, classifier.model.default_loss(), weighted_metrics=metrics, jit_compile=with_xla)
    return schedule


def _warn_of_the_warmup(schedule: WarmupLinearDecay, config: ExperimentConfig) -> None:
    steps, share = schedule.num_train_steps, config.optimizer.warmup_proportion
    runtime.warn(
        f"the warmup of {schedule.num_warmup_steps} steps is longer than the training of {steps}: the learning rate "
        f"only rises, to {float(schedule(steps - 1)):.1e} and never to {schedule.peak_learning_rate:.1e}; "
        f"--config.optimizer.warmup_steps=0 warms up for {int(share * steps)} steps instead, a share of {share}"
    )


def _keep_best(classifier: Classifier, run: Workdir, best: dict[str, Any], *, base: str) -> dict[str, Any]:
    folder = checkpoints.save(classifier.model, classifier.tokenizer, run.checkpoints, step=best["step"], base=base)
    best = {"checkpoint": folder.name, **best}
    json_files.write(run.best, best)
    checkpoints.prune(run.checkpoints, keep=folder)
    return best


def _show_answers(classifier: Classifier, shown: tuple[Sequence[str], Sequence[str] | None]) -> None:
    for answer in classifier.answers(*shown):
        asked = " | ".join(textwrap.shorten(answer[name], 80) for name in ("text", "text_pair") if name in answer)
        print(f"  {asked!r} -> {_in_short(answer)}", flush=True)


def _in_short(answer: dict[str, Any]) -> str:
    if "label" in answer:
        return f"{answer['label']} ({answer['score']:.3f})"
    return ", ".join(answer["labels"]) or "none of the labels" if "labels" in answer else f"{answer['score']:.3f}"

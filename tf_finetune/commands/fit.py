"""The training itself, once `train` has gathered its inputs: the half that needs TensorFlow."""

import dataclasses
import hashlib
import json
import shlex
import sys
import tempfile
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tf_finetune import runtime, settings
from tf_finetune.bert import tiny
from tf_finetune.bert.architecture import BertArchitecture
from tf_finetune.bert.model import TFBertForSequenceClassification
from tf_finetune.commands import batch_memory, resume
from tf_finetune.commands.inputs import Inputs
from tf_finetune.commands.restore import temperature_of
from tf_finetune.commands.resume import EarlierRun
from tf_finetune.commands.training_loop import TrainingLoop, training_order_of, validate
from tf_finetune.config import ClassWeights, ExperimentConfig, ProblemType
from tf_finetune.data import sources
from tf_finetune.data.tokenized import TokenizedExamples
from tf_finetune.errors import InputError
from tf_finetune.evaluation.classifier import Classifier
from tf_finetune.native import compiled
from tf_finetune.text.tokenizer import Tokenizer
from tf_finetune.training import advice, checkpoints, state_arrays
from tf_finetune.training.callbacks import MetricsLog
from tf_finetune.training.checkpoints import TrainingState
from tf_finetune.training.cost import CostMeter
from tf_finetune.training.losses import SmoothedCrossentropy
from tf_finetune.training.optimizer import WarmupSchedule, create_optimizer, layer_decay_factors
from tf_finetune.training.stops import Stops
from tf_finetune.workdir import Workdir, writing

# Asked before and after training, so that one sees what was learnt.
REVIEW_TEXTS = ("The movie was absolutely wonderful, full of joy.", "The movie was terrible and boring.")
# Rows a vocabulary is padded with so that matrix products fit the hardware; more missing tokens mean another tokenizer.
VOCABULARY_PADDING = 128


def fit(inputs: Inputs, run: Workdir, stops: Stops, *, num_train_steps: int | None = None) -> dict[str, Any]:
    """Trains, and keeps the best checkpoint in the workdir.

    Args:
        inputs: train and validation at least.
        run: where the results go; what an earlier run left there is removed, unless it is gone on with.
        stops: whether somebody asked the run to stop.
        num_train_steps: what the learning rate is scheduled for; None means the steps there are.

    Returns:
        The content of best.json.
    """
    config, earlier = inputs.config, inputs.earlier
    policy = _set_up(config)
    with runtime.precision_policy(policy):
        classifier = build_classifier(config, inputs.splits, inputs.checkpoint)
    tokenized = {name: classifier.tokenize(examples) for name, examples in inputs.splits.examples.items()}
    tokenized["train"] = weighted(tokenized["train"], config, len(inputs.splits.label_names))
    _describe_data(tokenized, inputs.splits, config)
    facts = _facts(config, tokenized, inputs.splits, policy)
    state = resume.beginning(earlier, facts["data"], source=config.data.source)
    chosen = _with_budget(config, state, tokenized["train"].lengths, classifier.model.architecture)
    schedule = _compile(classifier, tokenized["train"], chosen, num_train_steps)
    shown, log = _shown(inputs.splits, config), MetricsLog(run.metrics, run.tensorboard)
    began = time.perf_counter()
    untrained = None if earlier else _first_look(classifier, tokenized["validation"], shown)
    _check_best_metric(config.train.best_metric, untrained)
    meter = _cost_meter(classifier, policy, config, seconds_between=time.perf_counter() - began)
    metrics = _restored(classifier.model, earlier.checkpoint) if earlier else {}
    with stops.deferred():
        _open(run, log, config, earlier, untrained, facts)
        stops.is_begun = True
        began = time.perf_counter()
        best = TrainingLoop(
            classifier=classifier,
            tokenized=tokenized,
            schedule=schedule,
            config=chosen,
            run=run,
            log=log,
            meter=meter,
            stops=stops,
            facts=facts,
            state=dataclasses.replace(state, batch_tokens=chosen.train.batch_tokens),
            metrics=metrics,
            saved=earlier.state if earlier else None,
        ).train()
    print(f"after training for {time.perf_counter() - began:.0f} s, validation included:")
    folder, options = run.best_checkpoint(), settings.classifier_options(config)
    _show_answers(Classifier.from_checkpoint(folder, temperature=temperature_of(folder), **options), shown)
    return best


def _set_up(config: ExperimentConfig) -> str:
    """Seeds, operations and the policy of precision, which is returned; says what they are."""
    if config.runtime.deterministic:
        runtime.use_deterministic_operations()
    keras.utils.set_random_seed(config.runtime.seed)
    policy = runtime.training_policy(config.runtime.precision)
    compiled.use(config.runtime.compiled)
    print(f"runtime: {runtime.describe(policy)}; operations {compiled.state()}", flush=True)
    return policy


def _first_look(
    classifier: Classifier, examples: TokenizedExamples, shown: tuple[Sequence[str], Sequence[str] | None]
) -> dict[str, float]:
    """How the model does before training; prints it."""
    print("before training:")
    untrained = validate(classifier, examples)
    _show_answers(classifier, shown)
    return untrained


def _check_best_metric(name: str, untrained: dict[str, float] | None) -> None:
    """Refuses a metric that these labels do not have, before anything is trained for it."""
    if name and untrained is not None and name not in untrained:
        expected = " or ".join(sorted(untrained))
        raise InputError("no such metric in validation", where="train.best_metric", expected=expected, got=name)


def _open(
    run: Workdir,
    log: MetricsLog,
    config: ExperimentConfig,
    earlier: EarlierRun | None,
    untrained: dict[str, float] | None,
    facts: dict[str, Any],
) -> None:
    """Makes the folder ready: for a new run, or as it was when the earlier one wrote its checkpoint."""
    if earlier:
        log.cut(earlier.state.metrics_bytes, warn=runtime.warn)
        resume.settle(run, earlier.state, config)
        resume.say_what_changed(earlier, facts["surroundings"])
    else:
        run.clear()  # only now: the model has read the data and answered, so an earlier run is no longer needed
    # What was asked for, so that the same command finds its run again; a budget of tokens that was found by the free
    # memory is another one next time, and stands in best.json.
    with writing(run.config):
        run.publish_config(facts["config"])
    if untrained is not None:
        log.write(split="validation", epoch=-1, step=0, **untrained)


def _restored(model: keras.Model, checkpoint: Path) -> dict[str, np.ndarray]:
    """Puts the training state of a checkpoint back, and returns the metrics in it, whose time comes within `fit`."""
    arrays, metrics = state_arrays.split(checkpoints.arrays_in(checkpoint))
    state_arrays.restore(model, arrays)
    return metrics


def _facts(
    config: ExperimentConfig, tokenized: dict[str, TokenizedExamples], splits: sources.Splits, policy: str
) -> dict[str, Any]:
    """What a checkpoint's manifest says of where its weights come from."""
    fields = settings.to_dict(config)
    used = {name: tokenized[name] for name in ("train", "validation")}
    return {
        "base": config.model.checkpoint,
        "seed": config.runtime.seed,
        "config": fields,
        "config_sha256": hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest(),
        "data": {
            "labels": {"kind": splits.problem_type.value, "names": list(splits.label_names)},
            **{name: {"examples": len(one), "sha256": one.digest()} for name, one in used.items()},
        },
        "surroundings": {**runtime.surroundings(policy), "operations": compiled.state()},
        "command": shlex.join(sys.argv),
    }


def _with_budget(
    config: ExperimentConfig, state: TrainingState, lengths: np.ndarray, architecture: BertArchitecture
) -> ExperimentConfig:
    """A copy with its budget of tokens found: a run keeps the one it began with."""
    if state.step and config.train.batch_tokens == 0:
        return dataclasses.replace(config, train=dataclasses.replace(config.train, batch_tokens=state.batch_tokens))
    chosen = batch_memory.with_budget(config, lengths, architecture)
    batch_memory.warn_of_too_large(chosen, lengths, architecture)
    return chosen


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
        checkpoint,
        id2label=list(splits.label_names),
        new_head=new_head,
        problem_type=splits.problem_type.value,
        **settings.dropout_overrides(config),
    )
    _choose_layers(model, config, checkpoint)
    return Classifier(model, tokenizer, **settings.classifier_options(config))


def _choose_layers(model: TFBertForSequenceClassification, config: ExperimentConfig, checkpoint: Path) -> None:
    """Starts the last blocks anew and keeps the first ones out of training, where the config says so."""
    layers = model.architecture.num_hidden_layers
    for field in ("freeze_layers", "reinit_layers"):
        if (number := getattr(config.model, field)) > layers:
            where, expected = f"model.{field}, of {checkpoint}", f"at most {layers}, the blocks it has"
            raise InputError("the model has fewer blocks", where=where, expected=expected, got=number)
    if config.model.reinit_layers:
        model.bert.reinitialize(config.model.reinit_layers)
    model.bert.freeze(embeddings=config.model.freeze_embeddings, num_layers=config.model.freeze_layers)


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


def _cost_meter(classifier: Classifier, policy: str, config: ExperimentConfig, *, seconds_between: float) -> CostMeter:
    sizes = classifier.model.architecture
    rate = runtime.matrix_rate(
        keras.DTypePolicy(policy).compute_dtype,
        hidden_size=sizes.hidden_size,
        intermediate_size=sizes.intermediate_size,
    )
    return CostMeter(epochs=config.train.epochs, matrix_rate=rate, seconds_between=seconds_between)


def _compile(
    classifier: Classifier, examples: TokenizedExamples, config: ExperimentConfig, num_train_steps: int | None
) -> WarmupSchedule:
    """Makes the model ready to train, and warns of what usually is a mistake in its options."""
    chosen = config.optimizer
    if num_train_steps is None:
        num_train_steps = sum(len(training_order_of(examples, config, epoch)) for epoch in range(config.train.epochs))
    warmup = chosen.warmup_steps or int(chosen.warmup_proportion * num_train_steps)
    if config.train.gradient_checkpointing:
        classifier.model.gradient_checkpointing_enable()
    if config.train.accumulation_steps > 1:
        classifier.model.gradient_accumulation_enable(config.train.accumulation_steps)
    optimizer, schedule = create_optimizer(
        chosen.learning_rate,
        num_train_steps,
        warmup,
        weight_decay_rate=chosen.weight_decay,
        adam_beta1=chosen.beta_1,
        adam_beta2=chosen.beta_2,
        adam_epsilon=chosen.epsilon,
        adam_global_clipnorm=chosen.max_grad_norm or None,
        schedule=chosen.schedule.value,
        learning_rate_factors=layer_decay_factors(chosen.layer_decay, classifier.model.architecture.num_hidden_layers),
        skip_nonfinite_steps=True,
    )
    if warmup > num_train_steps:
        _warn_of_the_warmup(schedule, config)
    runtime.advise(advice.of_learning_rate(chosen.learning_rate))
    runtime.advise(advice.of_truncation(examples.lengths, config.data.max_length))
    metrics = None
    if classifier.problem_type is ProblemType.SINGLE_LABEL_CLASSIFICATION:
        # By its class: from the word alone Keras would make it within the first step, and trace that twice.
        metrics = [keras.metrics.SparseCategoricalAccuracy("accuracy")]
    # XLA compiles anew for every batch length, so only where these are few; on a CPU our own operations are faster.
    with_xla = bool(config.train.num_shapes and runtime.gpus() and config.train.accumulation_steps == 1)
    loss = _loss(classifier, config.train.label_smoothing)
    classifier.model.compile(optimizer, loss, weighted_metrics=metrics, jit_compile=with_xla)
    if metrics:  # Keras makes the rest of them within the first step; those of a checkpoint want a place before
        one, labels = examples.labels[:1], len(classifier.label_names)
        classifier.model.compute_metrics(None, one, np.zeros((1, labels), np.float32))
        classifier.model.reset_metrics()
    return schedule


def _loss(classifier: Classifier, label_smoothing: float) -> keras.losses.Loss:
    if not label_smoothing:
        return classifier.model.default_loss()
    if classifier.problem_type is ProblemType.MULTI_LABEL_CLASSIFICATION:
        return keras.losses.BinaryCrossentropy(from_logits=True, label_smoothing=label_smoothing)
    if classifier.problem_type is ProblemType.REGRESSION:
        expected = "0, as labels that are numbers have no classes to share out among"
        raise InputError(
            "no label smoothing here", where="train.label_smoothing", expected=expected, got=label_smoothing
        )
    return SmoothedCrossentropy(label_smoothing)


def _warn_of_the_warmup(schedule: WarmupSchedule, config: ExperimentConfig) -> None:
    steps, share = schedule.num_train_steps, config.optimizer.warmup_proportion
    runtime.warn(
        f"the warmup of {schedule.num_warmup_steps} steps is longer than the training of {steps}: the learning rate "
        f"only rises, to {float(schedule(steps - 1)):.1e} and never to {schedule.peak_learning_rate:.1e}; "
        f"--config.optimizer.warmup_steps=0 warms up for {int(share * steps)} steps instead, a share of {share}"
    )


def _show_answers(classifier: Classifier, shown: tuple[Sequence[str], Sequence[str] | None]) -> None:
    for answer in classifier.answers(*shown):
        asked = " | ".join(textwrap.shorten(answer[name], 80) for name in ("text", "text_pair") if name in answer)
        print(f"  {asked!r} -> {_in_short(answer)}", flush=True)


def _in_short(answer: dict[str, Any]) -> str:
    if "label" in answer:
        return f"{answer['label']} ({answer['score']:.3f})"
    return ", ".join(answer["labels"]) or "none of the labels" if "labels" in answer else f"{answer['score']:.3f}"

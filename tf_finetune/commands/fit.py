"""The training itself, once `train` has gathered its inputs: the half that needs TensorFlow."""

import dataclasses
import hashlib
import json
import math
import shlex
import sys
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tf_finetune import devices, processes, runtime, settings
from tf_finetune.bert.model import TFBertForSequenceClassification
from tf_finetune.commands import batch_memory, resume
from tf_finetune.commands.inputs import Inputs
from tf_finetune.commands.model_setup import build_classifier, choose_weights, compile_classifier, is_with_xla
from tf_finetune.commands.restore import temperature_of
from tf_finetune.commands.resume import EarlierRun
from tf_finetune.commands.runtime_block import runtime_block
from tf_finetune.commands.training_loop import TrainingLoop, training_order_of, validate
from tf_finetune.config import ClassWeights, ExperimentConfig, ProblemType
from tf_finetune.data import sources
from tf_finetune.data.order import NUM_SHAPES_OF_JAX
from tf_finetune.data.tokenized import TokenizedExamples
from tf_finetune.devices import Devices
from tf_finetune.errors import InputError
from tf_finetune.evaluation.classifier import Classifier
from tf_finetune.native import compiled
from tf_finetune.training import advice, checkpoints, state_arrays
from tf_finetune.training.callbacks import MetricsLog, NoLog
from tf_finetune.training.checkpoints import TrainingState
from tf_finetune.training.cost import CostMeter
from tf_finetune.training.optimizer import WarmupSchedule
from tf_finetune.training.stops import Stops
from tf_finetune.workdir import Workdir, writing

# Asked before and after training, so that one sees what was learnt.
REVIEW_TEXTS = ("The movie was absolutely wonderful, full of joy.", "The movie was terrible and boring.")


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
    config = inputs.config
    chosen, shown = set_up(config), _shown(inputs.splits, config)
    with chosen.scope():
        best = _fit(inputs, run, stops, chosen, num_train_steps)
    folder, options = run.best_checkpoint(), settings.classifier_options(config)
    _show_answers(Classifier.from_checkpoint(folder, temperature=temperature_of(folder), **options), shown)
    return best


def _fit(
    inputs: Inputs, run: Workdir, stops: Stops, trained_on: Devices, num_train_steps: int | None
) -> dict[str, Any]:
    config, earlier = inputs.config, inputs.earlier
    classifier, tokenized = prepared(inputs, trained_on)
    facts = _facts(config, tokenized, inputs.splits, trained_on)
    processes.same("their data", facts["data"]["train"]["sha256"][:12], expected="the same examples for each")
    state = resume.beginning(earlier, facts["data"], source=config.data.source)
    chosen = with_budget(config, state, tokenized["train"].lengths, classifier.model)
    say_runtime(trained_on, chosen, tokenized["train"], classifier.model)
    if num_train_steps is None:
        orders = (training_order_of(tokenized["train"], chosen, epoch) for epoch in range(config.train.epochs))
        num_train_steps = sum(map(len, orders))
    schedule = compile_classifier(classifier, tokenized["train"].labels, chosen, num_train_steps)
    _warn_of_mistakes(config, schedule, tokenized["train"])
    shown = _shown(inputs.splits, config)
    log = MetricsLog(run.metrics, run.tensorboard) if processes.is_writer() else NoLog()
    began = time.perf_counter()
    untrained = None if earlier else _first_look(classifier, tokenized["validation"], shown)
    meter = _cost_meter(classifier, trained_on, config, seconds_between=time.perf_counter() - began)
    metrics = _restored(classifier.model, earlier.checkpoint) if earlier else {}
    with stops.deferred():
        processes.meet()  # each has read what is about to change
        if processes.is_writer():
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
    return best


def prepared(inputs: Inputs, trained_on: Devices) -> tuple[Classifier, dict[str, TokenizedExamples]]:
    """The model to be trained, and the examples of each split as tokens; says what they are. To be called within the
    scope of the devices.

    The training examples have their weights, and those that are replayed are among them.
    """
    config = inputs.config
    with runtime.precision_policy(trained_on.policy):
        classifier = build_classifier(config, inputs.splits, inputs.checkpoint)
        choose_weights(classifier.model, config, goes_on=inputs.earlier is not None)
    tokenized = {name: classifier.tokenize(examples) for name, examples in inputs.splits.examples.items()}
    if inputs.replayed is not None:
        print(f"replayed: {len(inputs.replayed)} training examples of {config.model.checkpoint}")
        tokenized["train"] = tokenized["train"].joined(classifier.tokenize(inputs.replayed))
    tokenized["train"] = weighted(tokenized["train"], config, len(inputs.splits.label_names))
    _describe_data(tokenized, inputs.splits, config)
    return classifier, tokenized


def set_up(config: ExperimentConfig) -> Devices:
    """Seeds, operations and the devices, which are returned."""
    if config.runtime.deterministic:
        devices.use_deterministic_operations()
    keras.utils.set_random_seed(config.runtime.seed)
    asked = config.runtime
    chosen = devices.choose(backend=asked.backend, strategy=asked.strategy, precision=asked.precision)
    compiled.use(asked.compiled)
    return chosen


def say_runtime(
    trained_on: Devices, config: ExperimentConfig, train: TokenizedExamples, model: TFBertForSequenceClassification
) -> None:
    """Prints what the run computes on, and warns where it cannot; the config is `with_budget`'s."""
    of_batches = train.lengths, model.architecture, _trained_weights(model)
    widths, memory = training_order_of(train, config, 0).widths, batch_memory.expected_memory(config, *of_batches)
    block = runtime_block(trained_on, config, widths.tolist(), with_xla=is_with_xla(config), memory=memory)
    print(block, flush=True)
    batch_memory.warn_of_too_large(config, *of_batches)


def _first_look(
    classifier: Classifier, examples: TokenizedExamples, shown: tuple[Sequence[str], Sequence[str] | None]
) -> dict[str, float]:
    """How the model does before training; prints it."""
    print("before training:")
    untrained = validate(classifier, examples)
    _show_answers(classifier, shown)
    return untrained


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
    config: ExperimentConfig, tokenized: dict[str, TokenizedExamples], splits: sources.Splits, trained_on: Devices
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
        "surroundings": {
            **devices.surroundings(trained_on.policy),
            **trained_on.facts,
            "operations": compiled.state(),
        },
        "command": shlex.join(sys.argv),
    }


def with_budget(
    config: ExperimentConfig, state: TrainingState, lengths: np.ndarray, model: TFBertForSequenceClassification
) -> ExperimentConfig:
    """A copy with its budget of tokens and, on JAX, the number of its shapes found: a run keeps those it began with."""
    if devices.keras_backend() == "jax" and not config.train.num_shapes:
        few = dataclasses.replace(config.train, num_shapes=NUM_SHAPES_OF_JAX)
        config = dataclasses.replace(config, train=few)
    if state.step and config.train.batch_tokens == 0:
        return dataclasses.replace(config, train=dataclasses.replace(config.train, batch_tokens=state.batch_tokens))
    return batch_memory.with_budget(config, lengths, model.architecture, _trained_weights(model))


def _trained_weights(model: TFBertForSequenceClassification) -> int:
    return sum(math.prod(variable.shape) for variable in model.trainable_variables)


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


def _cost_meter(
    classifier: Classifier, trained_on: Devices, config: ExperimentConfig, *, seconds_between: float
) -> CostMeter:
    sizes = classifier.model.architecture
    rate = devices.matrix_rate(
        keras.DTypePolicy(trained_on.policy).compute_dtype,
        hidden_size=sizes.hidden_size,
        intermediate_size=sizes.intermediate_size,
    )
    if trained_on.kind != "CPU":  # whose logical devices share its cores
        rate *= trained_on.replicas
    return CostMeter(epochs=config.train.epochs, matrix_rate=rate, seconds_between=seconds_between)


def _warn_of_mistakes(config: ExperimentConfig, schedule: WarmupSchedule, examples: TokenizedExamples) -> None:
    if schedule.num_warmup_steps > schedule.num_train_steps:
        _warn_of_the_warmup(schedule, config)
    rate, lora = config.optimizer.learning_rate, bool(config.model.lora_rank)
    runtime.advise(advice.of_learning_rate(rate, lora=lora))
    runtime.advise(advice.of_truncation(examples.lengths, config.data.max_length))


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

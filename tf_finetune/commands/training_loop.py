"""From wherever a run stands to its end: train, validate, keep, and stop when asked to."""

import dataclasses
import json
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from tf_finetune import devices, processes, replicas, runtime
from tf_finetune.bert.architecture import BertArchitecture
from tf_finetune.bert.flops import step_flops
from tf_finetune.commands import batch_memory
from tf_finetune.commands.resume import is_out_of_patience, is_over, settle
from tf_finetune.config import ExperimentConfig, ModelConfig, ProblemType
from tf_finetune.data.order import BatchOrder, shape_set, training_order
from tf_finetune.data.pipeline import batches, timed
from tf_finetune.data.tokenized import TokenizedExamples
from tf_finetune.errors import Interrupted, RunError
from tf_finetune.evaluation.calibration import fit_temperature
from tf_finetune.evaluation.classifier import Classifier
from tf_finetune.evaluation.metrics import headline, metrics_of, score
from tf_finetune.training import advice, checkpoints, state_arrays
from tf_finetune.training.callbacks import AfterPrediction, FiniteMetrics, MetricsLog, Pause, Progress, RestoreMetrics
from tf_finetune.training.callbacks_jax import FiniteMetricsInStep
from tf_finetune.training.checkpoints import START_OVER, TrainingState
from tf_finetune.training.cost import CostMeter, EpochWork
from tf_finetune.training.optimizer import WarmupSchedule
from tf_finetune.training.stops import Stops
from tf_finetune.workdir import Workdir


@dataclasses.dataclass(kw_only=True)
class TrainingLoop:
    """A run at work.

    It trains from one validation to the next, one `model.fit` each, which a checkpoint or a signal may end before. What
    comes after such a pause is what a new process does that goes on from a checkpoint: there is one way to go on.

    Attributes:
        classifier: its model compiled.
        tokenized: train and validation.
        schedule: learning rate by step, and the number of steps of the run.
        config: with its budget of tokens found.
        run: where the results go.
        log: of the metrics.
        meter: of the run's speed.
        stops: whether somebody asked the run to stop.
        facts: for the manifest of every checkpoint.
        state: how far the run has come.
        metrics: those of the epoch so far, to be put back when training goes on within it; else none.
        saved: the state last saved; None before the first.
    """

    classifier: Classifier
    tokenized: dict[str, TokenizedExamples]
    schedule: WarmupSchedule
    config: ExperimentConfig
    run: Workdir
    log: MetricsLog
    meter: CostMeter
    stops: Stops
    facts: dict[str, Any]
    state: TrainingState
    metrics: Mapping[str, np.ndarray]
    saved: TrainingState | None

    def train(self) -> dict[str, Any]:
        """Returns the content of best.json.

        Raises:
            Interrupted: by a signal; what was done is kept.
            RunError: it cannot go on.
        """
        self.saved_at = time.monotonic()
        while not is_over(self.state, self.config):
            order = training_order_of(self.tokenized["train"], self.config, self.state.epoch)
            stop = self._next_validation(order)
            if self.state.batch < stop and not self.stops.asked_by:
                self._train_to(order, stop)
            self.stops.ask(now=True)
            if self.stops.asked_by:
                self._leave()
            elif self.state.batch < stop:
                self._save()
            else:
                self._validate(order)
        return self.state.best

    def _next_validation(self, order: BatchOrder) -> int:
        """The batch of this epoch before which it is validated."""
        every, state = self.config.train.validate_every_steps, self.state
        if not every:
            return len(order)
        before_epoch = state.step - state.batch
        earliest = state.step + (1 if state.validation or not state.step else 0)
        return min(len(order), math.ceil(earliest / every) * every - before_epoch)

    def _train_to(self, order: BatchOrder, stop: int) -> None:
        """Trains as far as a batch of the epoch, or until a checkpoint is due or a signal came."""
        state, train, model = self.state, self.tokenized["train"], self.classifier.model
        shared, part = devices.replicas_at_work() > 1, devices.part_at_work()
        dataset = batches(train, order, first=state.batch, part=part, weighted=shared).take(stop - state.batch)
        waited = None
        if not (devices.is_deterministic() or replicas.has_strategy()):  # which has batches fetched ahead of the step
            dataset, waited = timed(dataset)
        kept = checkpoints.what_is_kept(self.run.checkpoints)
        kind = FiniteMetricsInStep if devices.keras_backend() == "jax" else FiniteMetrics
        metrics = kind(
            first_step=state.step,
            most=self.config.train.max_skipped_steps,
            way_on=f"{kept}; a lower learning rate may help, which is another run: {START_OVER}",
        )
        progress = Progress(
            self.log,
            metrics=metrics,
            schedule=self.schedule,
            meter=self.meter,
            work=_work(order, train.lengths, model.architecture, self.config.model),
            waited=waited,
            first_step=state.step - state.batch,
            first_batch=state.batch,
            every=self.config.train.log_every_steps,
        )
        callbacks = [RestoreMetrics(self.metrics), metrics, progress, Pause(self._is_due)]
        options = {"initial_epoch": state.epoch, "epochs": state.epoch + 1, "shuffle": False, "verbose": 0}
        with batch_memory.answered(lambda: no_room(self.config, order, progress.batch)):
            model.fit(dataset, **options, callbacks=callbacks)
        done = progress.batch + 1 - state.batch
        self.state = dataclasses.replace(state, batch=state.batch + done, step=state.step + done, validation={})
        self.metrics = state_arrays.metrics_of(model)
        if self.state.batch == len(order):
            self._warn_of_loss(metrics.numbers)

    def _is_due(self, done: int) -> bool:
        """Whether training pauses after so many steps of this `fit`."""
        steps, minutes = self.config.train.checkpoint_every_steps, self.config.train.checkpoint_every_minutes
        by_steps = steps and (self.state.step + done) % steps == 0
        by_time = minutes and time.monotonic() - self.saved_at >= 60 * minutes
        return bool(by_steps or self.stops.ask(bool(by_time)))

    def _warn_of_loss(self, numbers: dict[str, float]) -> None:
        train, smoothing = self.tokenized["train"], self.config.train.label_smoothing
        if "loss" in numbers:
            chance = advice.chance_loss(train.labels, train.weights, label_smoothing=smoothing)
            runtime.advise(advice.of_loss(numbers["loss"], chance, self.state.epoch))

    def _validate(self, order: BatchOrder) -> None:
        began = time.perf_counter()
        state, kind = self.state, self.classifier.problem_type
        is_end = state.batch == len(order)
        when = f"epoch {state.epoch + 1}" + ("" if is_end else f"  step {state.step}")
        asks = AfterPrediction(self._check_in_validation)
        try:
            calibrate = self.config.train.calibrate
            with self.classifier.model.optimizer.averaged():
                result = validate(
                    self.classifier, self.tokenized["validation"], when=when, calibrate=calibrate, callbacks=[asks]
                )
        except Interrupted:
            self._leave()
        result = json.loads(processes.agreed(json.dumps(result)))  # machines may differ in the last bit
        timing = {"seconds": time.perf_counter() - began}
        self.log.write(split="validation", epoch=state.epoch, step=state.step, **result, timing=timing)
        place = {"epoch": state.epoch + 1, "batch": 0} if is_end else {}
        state = dataclasses.replace(state, validation=result, **place)
        by = self.config.train.best_metric
        is_better = not state.best or score(result, kind, by) > score(state.best["validation"], kind, by)
        best, since_best = (state.as_best(), 0) if is_better else (state.best, state.validations_since_best + 1)
        self.state = dataclasses.replace(state, best=best, validations_since_best=since_best)
        if is_end:
            self.metrics = {}
        stops_early = self.state.epoch < self.config.train.epochs and is_out_of_patience(self.state, self.config)
        if is_end or is_better or stops_early or self._is_due(0):
            self._save()
        if is_end:
            self.meter.seconds_between = time.perf_counter() - began
        if stops_early:
            print(f"stopping early: no better validation since epoch {best['epoch'] + 1}")

    def _check_in_validation(self) -> None:
        self.stops.ask()
        self.stops.check("in validation")

    def _save(self) -> None:
        """Process 0 writes, and the others wait for it."""
        self.state = dataclasses.replace(self.state, metrics_bytes=int(processes.agreed(str(self.log.size()))))
        if not self.state.step or self.state == self.saved:
            return
        arrays = state_arrays.arrays_of(self.classifier.model) | self.metrics
        parts = self.classifier.model, self.classifier.tokenizer
        temperature = {name: value for name, value in self.state.validation.items() if name == "temperature"}
        with self.classifier.model.optimizer.averaged():
            if processes.is_writer():
                checkpoints.save(*parts, self.run.checkpoints, self.state, arrays, **self.facts, **temperature)
        if processes.is_writer():
            settle(self.run, self.state, self.config)
        processes.meet()
        self.saved, self.saved_at = self.state, time.monotonic()

    def _leave(self) -> None:
        """Saves, and raises Interrupted."""
        self._save()
        where = "before the first step"
        if self.saved:
            where = f"at step {self.saved.step} of {self.schedule.num_train_steps}, kept in {self.run.checkpoints}"
        self.stops.check(where)


def training_order_of(examples: TokenizedExamples, config: ExperimentConfig, epoch: int) -> BatchOrder:
    """The batches of an epoch."""
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
        rows_multiple_of=devices.replicas_at_work(),
    )


def validate(
    classifier: Classifier,
    examples: TokenizedExamples,
    *,
    when: str = "",
    calibrate: bool = False,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> dict[str, float]:
    """The metrics that are plain numbers, in the precision of training; printed, too.

    Args:
        classifier: asked.
        examples: the validation split.
        when: the words for where the training stands; empty before it has begun.
        calibrate: add the "temperature" that suits these examples; a regression has none.
        callbacks: for Keras's `predict`.

    Raises:
        RunError: a loss that is not finite, or too little memory.
    """
    with batch_memory.answered(lambda: batch_memory.in_validation(classifier.batch_size)):
        logits = classifier.logits_of(examples, callbacks=callbacks)
    if not np.isfinite(logits).all():
        raise RunError("the validation loss is not finite: a lower learning rate may help")
    metrics = metrics_of(logits, examples.labels, classifier.problem_type)
    print(f"{when}  validation {headline(metrics)}  loss {metrics['loss']:.4f}", flush=True)
    if when and classifier.problem_type is ProblemType.SINGLE_LABEL_CLASSIFICATION:
        runtime.advise(advice.of_constant_answers(logits, classifier.label_names, len(np.unique(examples.labels))))
    if calibrate and classifier.problem_type is not ProblemType.REGRESSION:
        metrics["temperature"] = fit_temperature(logits, examples.labels, classifier.problem_type)
    return {name: value for name, value in metrics.items() if isinstance(value, float)}


def _work(order: BatchOrder, lengths: np.ndarray, architecture: BertArchitecture, chosen: ModelConfig) -> EpochWork:
    """What each batch of an epoch holds and computes."""
    return EpochWork(
        examples=order.sizes,
        tokens=order.useful_tokens(lengths),
        computed_tokens=order.rows * order.widths,
        flops=step_flops(
            architecture,
            batch_size=order.rows,
            length=order.widths,
            frozen_embeddings=chosen.freeze_embeddings,
            frozen_layers=chosen.freeze_layers,
            lora=chosen.lora_rank > 0,
        ),
    )


def no_room(config: ExperimentConfig, order: BatchOrder, batch: int) -> str:
    """The words for a batch of an epoch that there was too little memory for."""
    texts, length = np.diff(order.starts)[batch], order.widths[batch]
    return batch_memory.in_training(config, int(texts), int(length))

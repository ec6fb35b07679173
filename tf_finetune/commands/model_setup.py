"""The model of a training run, from a pretrained checkpoint to compiled: head, trained parts, optimizer, loss."""

import tempfile
from pathlib import Path

import keras
import numpy as np

from tf_finetune import devices, replicas, runtime, settings
from tf_finetune.bert import tiny
from tf_finetune.bert.architecture import BertArchitecture
from tf_finetune.bert.layers import LORA_TARGETS
from tf_finetune.bert.model import TFBertForSequenceClassification
from tf_finetune.commands import continual
from tf_finetune.config import ExperimentConfig, LoraTargets, ProblemType
from tf_finetune.data import sources
from tf_finetune.errors import InputError
from tf_finetune.evaluation.classifier import Classifier
from tf_finetune.text.tokenizer import Tokenizer
from tf_finetune.training.losses import SmoothedCrossentropy
from tf_finetune.training.optimizer import WarmupSchedule, create_optimizer, layer_decay_factors

# Rows a vocabulary is padded with so that matrix products fit the hardware; more missing tokens mean another tokenizer.
VOCABULARY_PADDING = 128
KERNELS = {LoraTargets.QKV: LORA_TARGETS[:1], LoraTargets.ALL_LINEAR: LORA_TARGETS}


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
    if new_head and continual.is_of_run(str(checkpoint)):
        _keep_known_labels(model, checkpoint, architecture)
    return Classifier(model, tokenizer, **settings.classifier_options(config))


def _keep_known_labels(
    model: TFBertForSequenceClassification, checkpoint: Path, architecture: BertArchitecture
) -> None:
    """Gives the new head what the old one of a run knew, if the new one has all of its labels."""
    names = list(model.architecture.id2label)
    same_kind = architecture.resolved_problem_type == model.architecture.resolved_problem_type
    if not same_kind or not set(architecture.id2label) <= set(names):
        return
    columns = [names.index(name) for name in architecture.id2label]
    old = TFBertForSequenceClassification.from_pretrained(checkpoint).classifier
    for new, known in zip(model.classifier.weights, old.weights, strict=True):
        values = new.numpy()
        values[..., columns] = known.numpy()
        new.assign(values)


def choose_weights(model: TFBertForSequenceClassification, config: ExperimentConfig, *, goes_on: bool) -> None:
    """Starts the last blocks anew, keeps the first ones out of training, adds LoRA's factors: as the config says.

    Args:
        model: of `build_classifier`.
        config: as said.
        goes_on: whether the weights are those of an earlier run's checkpoint, whose last blocks have begun already.

    Raises:
        InputError: the model has fewer blocks.
    """
    chosen, blocks = config.model, model.architecture.num_hidden_layers
    for field in ("freeze_layers", "reinit_layers"):
        if (number := getattr(chosen, field)) > blocks:
            where, expected = f"model.{field}, of {chosen.checkpoint}", f"at most {blocks}, the blocks it has"
            raise InputError("the model has fewer blocks", where=where, expected=expected, got=number)
    if chosen.freeze_layers + chosen.reinit_layers > blocks:
        where, expected = "model.reinit_layers", f"at most {blocks - chosen.freeze_layers}, the blocks not frozen"
        raise InputError("fresh blocks would stay random", where=where, expected=expected, got=chosen.reinit_layers)
    if chosen.reinit_layers and not goes_on:
        model.bert.reinitialize(chosen.reinit_layers)
    if chosen.lora_rank:
        alpha = chosen.lora_alpha or None
        model.enable_lora(chosen.lora_rank, lora_alpha=alpha, targets=KERNELS[chosen.lora_targets])
    model.bert.freeze(embeddings=chosen.freeze_embeddings, num_layers=chosen.freeze_layers)


def _check_vocabulary(tokens: int, rows: int, checkpoint: Path) -> None:
    if tokens > rows:
        raise InputError(
            "the tokenizer has more tokens than the model", where=checkpoint, expected=f"at most {rows}", got=tokens
        )
    if tokens <= rows - VOCABULARY_PADDING:
        runtime.warn(
            f"the tokenizer has {tokens} tokens and the model {rows}: are both of the same checkpoint? ({checkpoint})"
        )


def compile_classifier(
    classifier: Classifier, labels: np.ndarray, config: ExperimentConfig, num_train_steps: int, *, schedule: str = ""
) -> WarmupSchedule:
    """Makes the model ready to train.

    Args:
        classifier: of `build_classifier`, its weights chosen.
        labels: those of training.
        config: as said.
        num_train_steps: what the learning rate is scheduled for.
        schedule: of `training.optimizer.SCHEDULES`; "" means the config's.

    """
    chosen = config.optimizer
    warmup = chosen.warmup_steps or int(chosen.warmup_proportion * num_train_steps)
    if config.train.gradient_checkpointing:
        classifier.model.gradient_checkpointing_enable()
    if config.train.accumulation_steps > 1:
        classifier.model.gradient_accumulation_enable(config.train.accumulation_steps)
    optimizer, rates = create_optimizer(
        chosen.learning_rate,
        num_train_steps,
        warmup,
        weight_decay_rate=chosen.weight_decay,
        adam_beta1=chosen.beta_1,
        adam_beta2=chosen.beta_2,
        adam_epsilon=chosen.epsilon,
        adam_global_clipnorm=chosen.max_grad_norm or None,
        schedule=schedule or chosen.schedule.value,
        learning_rate_factors=layer_decay_factors(chosen.layer_decay, classifier.model.architecture.num_hidden_layers),
        ema_momentum=chosen.ema_momentum or None,
        skip_nonfinite_steps=True,
    )
    metrics = None
    if classifier.problem_type is ProblemType.SINGLE_LABEL_CLASSIFICATION:
        # By its class: from the word alone Keras would make it within the first step, and trace that twice.
        metrics = [keras.metrics.SparseCategoricalAccuracy("accuracy")]
    loss = _loss(classifier, config.train.label_smoothing)
    classifier.model.compile(optimizer, loss, weighted_metrics=metrics, jit_compile=is_with_xla(config))
    if metrics:  # Keras makes the rest of them within the first step; those of a checkpoint want a place before
        logits = np.zeros((1, len(classifier.label_names)), np.float32)
        with keras.StatelessScope():  # they are made and count nothing
            classifier.model.compute_metrics(None, labels[:1], logits)
    return rates


def is_with_xla(config: ExperimentConfig) -> bool:
    """Whether steps are compiled by XLA. It compiles for every batch length anew, so on TensorFlow only where these are
    few; on a CPU our own operations are faster. JAX has no other way. Under tf.distribute Keras would have it compile
    the step of all devices together, which it cannot."""
    few, whole = config.train.num_shapes and devices.gpus(), config.train.accumulation_steps == 1
    return devices.keras_backend() == "jax" or bool(few and whole and not replicas.has_strategy())


def _loss(classifier: Classifier, label_smoothing: float) -> keras.losses.Loss:
    if not label_smoothing:
        return classifier.model.default_loss()
    if classifier.problem_type is ProblemType.MULTI_LABEL_CLASSIFICATION:
        return keras.losses.BinaryCrossentropy(from_logits=True, label_smoothing=label_smoothing)
    return SmoothedCrossentropy(label_smoothing)

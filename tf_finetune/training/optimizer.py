"""Warmup schedule and AdamW with decay exclusions matched by weight path."""

import contextlib
import math
import re
from collections.abc import Iterator, Sequence

import keras
from keras import ops

from tf_finetune import replicas
from tf_finetune.training import kernels

# Weights that carry no decay in BERT (Devlin et al. 2019): every bias, and LayerNorm's gamma and beta.
EXCLUDED_FROM_WEIGHT_DECAY = (r"/bias$", r"/gamma$", r"/beta$")


class WarmupSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """Linear from 0 to the peak over the warmup steps, and then as the class says.

    The value at step s (from 0) is that of `transformers.get_*_schedule_with_warmup`.

    Args:
        peak_learning_rate: the value reached after the warmup.
        num_train_steps: all steps, the warmup included.
        num_warmup_steps: steps of the linear rise; where they are more than all steps, the peak is never reached.
    """

    def __init__(self, peak_learning_rate: float, num_train_steps: int, num_warmup_steps: int):
        super().__init__()
        if num_warmup_steps < 0:
            raise ValueError(f"`num_warmup_steps` must be 0 or more. Received: num_warmup_steps={num_warmup_steps}")
        self.peak_learning_rate = peak_learning_rate
        self.num_train_steps = num_train_steps
        self.num_warmup_steps = num_warmup_steps

    def __call__(self, step):
        step = ops.cast(step, "float32")
        rise = step / max(1, self.num_warmup_steps)
        share = ops.where(step < self.num_warmup_steps, rise, self.after_warmup(step))
        return self.peak_learning_rate * share

    def after_warmup(self, step):
        """The share of the peak at a step after the warmup."""
        raise NotImplementedError

    @property
    def steps_after_warmup(self) -> int:
        return max(1, self.num_train_steps - self.num_warmup_steps)

    def get_config(self):
        return {
            "peak_learning_rate": self.peak_learning_rate,
            "num_train_steps": self.num_train_steps,
            "num_warmup_steps": self.num_warmup_steps,
        }


@keras.saving.register_keras_serializable("tf_finetune")
class WarmupLinearDecay(WarmupSchedule):
    """After the warmup linear to 0 at the last step."""

    def after_warmup(self, step):
        return ops.maximum((self.num_train_steps - step) / self.steps_after_warmup, 0.0)


@keras.saving.register_keras_serializable("tf_finetune")
class WarmupCosineDecay(WarmupSchedule):
    """After the warmup half a cosine to 0 at the last step (Loshchilov and Hutter 2017, without restarts)."""

    def after_warmup(self, step):
        return 0.5 + 0.5 * ops.cos(math.pi * ops.minimum((step - self.num_warmup_steps) / self.steps_after_warmup, 1.0))


@keras.saving.register_keras_serializable("tf_finetune")
class WarmupConstant(WarmupSchedule):
    """After the warmup the peak, to the end."""

    def after_warmup(self, step):
        return ops.ones_like(step)


@keras.saving.register_keras_serializable("tf_finetune")
class RangeTest(WarmupSchedule):
    """Without a warmup: from LOWEST of the peak to the peak at the last step, each step by the same factor."""

    LOWEST = 1e-5

    def after_warmup(self, step):
        return self.LOWEST ** (1 - step / max(1, self.num_train_steps - 1))


SCHEDULES = {
    "linear": WarmupLinearDecay,
    "cosine": WarmupCosineDecay,
    "constant": WarmupConstant,
    "range_test": RangeTest,
}


@keras.saving.register_keras_serializable("tf_finetune")
class AdamWeightDecay(keras.optimizers.AdamW):
    """AdamW (Loshchilov and Hutter 2019) that leaves some weights out of the decay, found by their path.

    Keras matches exclusions against `variable.name`, which in Keras 3 is only its last part ("gamma");
    a path such as `bert/layer_0/attention/output_dense/bias` says which weight it is. On the TensorFlow
    backend one fused kernel updates each weight in one pass; elsewhere Keras's own update runs.

    Under a tf.distribute strategy the gradients are summed over all replicas before they are clipped, where Keras clips
    each replica's own; and every copy of the weights is updated, or none is.

    Args:
        exclude_from_weight_decay: regular expressions searched in each weight's path.
        learning_rate_factors: pairs of a regular expression and a number: the learning rate, and with it the decay, of
            the weights whose path has the first that fits is multiplied by it.
        skip_nonfinite_steps: whether a step whose loss or gradient is not finite changes no weight and no slot; it
            counts as a step all the same (TensorFlow or JAX; neither accumulated gradients nor scaled losses).
        ends_with_averages: whether, with `use_ema`, the end of `fit` puts the averages in the weights' place, as
            Keras's optimizers do; without it they are there within `averaged()` alone, and training can go on.
        **kwargs: those of keras.optimizers.AdamW.

    Attributes:
        skipped_steps, skipped_in_a_row: int variables, how many steps were skipped in all and how many of them just
            now; with skip_nonfinite_steps, once it is built.
    """

    def __init__(
        self,
        *args,
        exclude_from_weight_decay: Sequence[str] = EXCLUDED_FROM_WEIGHT_DECAY,
        learning_rate_factors: Sequence[tuple[str, float]] = (),
        skip_nonfinite_steps: bool = False,
        ends_with_averages: bool = True,
        name="adamw",
        **kwargs,
    ):
        super().__init__(*args, name=name, **kwargs)
        if skip_nonfinite_steps and keras.backend.backend() not in ("tensorflow", "jax"):
            got = f"{keras.backend.backend()} backend"
            raise ValueError(f"`skip_nonfinite_steps` needs TensorFlow or JAX. Received: {got}")
        for option in ("gradient_accumulation_steps", "loss_scale_factor"):
            if skip_nonfinite_steps and getattr(self, option):
                got = f"{option}={getattr(self, option)}"
                raise ValueError(f"`skip_nonfinite_steps` goes with whole steps and unscaled losses. Received: {got}")
        self.excluded_patterns = tuple(exclude_from_weight_decay)
        self.learning_rate_factors = tuple((pattern, float(factor)) for pattern, factor in learning_rate_factors)
        self.skip_nonfinite_steps = skip_nonfinite_steps
        self.ends_with_averages = ends_with_averages
        self._norm = None  # of the gradients at hand, where it is known already

    def build(self, variables):
        if self.built:
            return
        for option in ("gradient_accumulation_steps", "ema_overwrite_frequency"):
            if replicas.has_strategy() and getattr(self, option):
                raise ValueError(f"`{option}` goes with one device. Received: a tf.distribute strategy")
        if self.skip_nonfinite_steps:
            self.skipped_steps = self.add_variable((), dtype="int32", name="skipped_steps")
            self.skipped_in_a_row = self.add_variable((), dtype="int32", name="skipped_in_a_row")
        excluded = [v for v in variables if any(re.search(p, v.path) for p in self.excluded_patterns)]
        self.exclude_from_weight_decay(var_list=excluded)
        super().build(variables)
        self._factors = [self._factor_of(variable.path) for variable in variables]
        if self.use_ema:  # Keras begins at the first step, which may be passed over
            for variable, average in zip(variables, self._model_variables_moving_average, strict=True):
                average.assign(ops.copy(variable))  # on JAX both would be one array, which a step takes once

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """Within it the weights are their averages, where there are some; afterwards they are as they were trained."""
        if not self.use_ema:
            yield
            return
        trained = [variable.numpy() for variable in self._trainable_variables]
        self._overwrite_model_variables_with_average_value(self._trainable_variables)
        if keras.backend.backend() == "jax":  # `predict` takes the arrays of the weights, which are the averages' own
            for variable in self._trainable_variables:
                variable.assign(ops.copy(variable))
        try:
            yield
        finally:
            for variable, value in zip(self._trainable_variables, trained, strict=True):
                variable.assign(value)

    def finalize_variable_values(self, var_list):
        if self.ends_with_averages:
            super().finalize_variable_values(var_list)

    def apply(self, grads, trainable_variables=None):
        if replicas.is_replica():
            self._apply_in_replica(grads, trainable_variables)
            return
        # Of a sparse embedding gradient Keras would take the norm of its rows, one for each token of the
        # batch, where the gradient of a word is the sum of them.
        if keras.backend.backend() == "tensorflow":
            is_plain = not self.gradient_accumulation_steps and self.loss_scale_factor is None
            prepared = kernels.summed_rows if is_plain and not self.amsgrad else kernels.dense_gradient
            grads = [prepared(gradient) for gradient in grads]
        if not self.skip_nonfinite_steps:
            return super().apply(grads, trainable_variables)
        if not self.built:
            self.build(list(trainable_variables))
        if keras.backend.backend() == "jax":
            return self._apply_and_keep(super().apply, grads, trainable_variables)
        return self._apply_if_finite(super().apply, grads, trainable_variables)

    def _apply_and_keep(self, apply, grads, trainable_variables):
        """On JAX: everything is computed, and where the gradient is not finite every value stays what it was."""
        is_finite = ops.isfinite(ops.sqrt(sum(ops.sum(ops.square(gradient)) for gradient in grads)))
        trained = self._trainable_variables if trainable_variables is None else trainable_variables
        before = [(variable, variable.value) for variable in (*trained, *self.variables)]
        skipped = ops.cast(ops.logical_not(is_finite), "int32")
        apply(grads, trainable_variables)
        for variable, value in before:
            variable.assign(ops.where(is_finite, variable.value, value))
        self.iterations.assign_add(ops.cast(skipped, self.iterations.dtype))
        self.skipped_steps.assign_add(skipped)
        self.skipped_in_a_row.assign((self.skipped_in_a_row + 1) * skipped)

    def _apply_if_finite(self, apply, grads, trainable_variables):
        import tensorflow as tf

        self._norm = kernels.global_norm(grads)

        def update():
            apply(grads, trainable_variables)
            self.skipped_in_a_row.assign(0)
            return self.iterations.value.read_value()

        tf.cond(tf.math.is_finite(self._norm), update, self._skip)
        self._norm = None

    def _skip(self):
        for count in (self.iterations, self.skipped_steps, self.skipped_in_a_row):
            count.assign_add(1)
        return self.iterations.value.read_value()

    def _apply_in_replica(self, grads, trainable_variables) -> None:
        """The same for one of several replicas: the sum of all gradients, and one decision for all copies."""
        import tensorflow as tf

        variables = list(self._trainable_variables if trainable_variables is None else trainable_variables)
        grads, variables = self._filter_empty_gradients(grads, variables)
        # The rows of a sparse one are others on each replica; whole, they are summed as fast as the rest.
        grads = replicas.summed([kernels.dense_gradient(gradient) for gradient in grads])
        if self.loss_scale_factor is not None:
            grads = [gradient / self.loss_scale_factor for gradient in grads]
        norm = replicas.agreed(kernels.global_norm(grads))
        grads = self._clip_gradients(grads, norm)

        def decide(strategy, grads, norm):
            def update():
                rate = self.learning_rate
                for variable, gradient in zip(variables, grads, strict=True):
                    strategy.extended.update(variable.value, self._update_copy, args=(gradient, rate), group=False)
                    if variable.constraint is not None:
                        variable.assign(variable.constraint(variable))
                if self.skip_nonfinite_steps:
                    self.skipped_in_a_row.assign(0)
                self._iterations.assign_add(1)
                return self.iterations.value.read_value()

            if self.skip_nonfinite_steps:
                tf.cond(tf.math.is_finite(replicas.first_of(strategy, norm)), update, self._skip)
            else:
                update()

        replicas.on_all_copies(decide, grads, norm)

    def _update_copy(self, variable, gradient, learning_rate) -> None:
        """Decay, step and average of one device's copy of a weight."""
        if self.weight_decay and self._use_weight_decay(variable):
            variable.assign(variable * (1 - learning_rate * self.weight_decay * self._factor(variable)))
        self.update_step(gradient, variable, learning_rate)
        if self.use_ema:  # as Keras has it: the first step's weights are the first average
            average = self._model_variables_moving_average[self._get_variable_index(variable)]
            share = self.ema_momentum * ops.cast(ops.not_equal(self.iterations, 0), variable.dtype)
            average.assign(share * average + (1 - share) * variable)

    def scale_loss(self, loss):
        # Keras asks for the loss here, before its gradient. Where only the loss is not finite, the gradient is made so.
        if self.skip_nonfinite_steps:
            loss = loss * ops.where(ops.isfinite(loss), 1.0, float("nan"))
        return super().scale_loss(loss)

    def _clip_gradients(self, grads, norm=None):
        if keras.backend.backend() != "tensorflow" or not self.global_clipnorm or self.clipnorm:
            return super()._clip_gradients(grads)
        norm = self._norm if norm is None else norm
        norm = kernels.global_norm(grads) if norm is None else norm
        return kernels.clipped_by_global_norm(grads, self.global_clipnorm, norm)

    def _apply_weight_decay(self, variables):
        if not self.weight_decay:
            return
        decay = self.learning_rate * self.weight_decay
        for variable in filter(self._use_weight_decay, variables):
            # One pass, where the parent's three products and a subtraction make four.
            variable.assign(variable * (1 - decay * self._factor(variable)))

    def _factor(self, variable) -> float:
        return self._factors[self._get_variable_index(variable)]

    def _factor_of(self, path: str) -> float:
        return next((factor for pattern, factor in self.learning_rate_factors if re.search(pattern, path)), 1.0)

    def update_step(self, gradient, variable, learning_rate):
        learning_rate = learning_rate * self._factor(variable)
        if keras.backend.backend() != "tensorflow" or self.amsgrad:
            return super().update_step(gradient, variable, learning_rate)
        index = self._get_variable_index(variable)
        kernels.fused_adam_update(
            variable,
            self._momentums[index],
            self._velocities[index],
            gradient,
            learning_rate=learning_rate,
            step=self.iterations + 1,
            beta_1=self.beta_1,
            beta_2=self.beta_2,
            epsilon=self.epsilon,
        )

    def get_config(self):
        ours = {
            "exclude_from_weight_decay": list(self.excluded_patterns),
            "learning_rate_factors": [list(pair) for pair in self.learning_rate_factors],
            "skip_nonfinite_steps": self.skip_nonfinite_steps,
            "ends_with_averages": self.ends_with_averages,
        }
        return {**super().get_config(), **ours}


def layer_decay_factors(layer_decay: float, num_hidden_layers: int) -> list[tuple[str, float]]:
    """`learning_rate_factors` of a BERT whose learning rate is a share of the block's above, from the last one down."""
    if layer_decay == 1:
        return []
    blocks = [(rf"/layer_{i}/", layer_decay ** (num_hidden_layers - 1 - i)) for i in range(num_hidden_layers)]
    return [*blocks, ("/embeddings/", layer_decay**num_hidden_layers)]


def create_optimizer(
    init_lr: float,
    num_train_steps: int,
    num_warmup_steps: int,
    *,
    weight_decay_rate: float = 0.0,
    adam_beta1: float = 0.9,
    adam_beta2: float = 0.999,
    adam_epsilon: float = 1e-8,
    adam_global_clipnorm: float | None = None,
    schedule: str = "linear",
    learning_rate_factors: Sequence[tuple[str, float]] = (),
    skip_nonfinite_steps: bool = False,
    ema_momentum: float | None = None,
) -> tuple[AdamWeightDecay, WarmupSchedule]:
    """The optimizer and schedule BERT is fine-tuned with; the arguments are those of the old TF function.

    Args:
        init_lr: the peak learning rate.
        num_train_steps: all optimizer steps of the run.
        num_warmup_steps: how many of them warm up.
        weight_decay_rate: decoupled decay, as a share of lr * weight; not on biases and LayerNorm.
        adam_epsilon: added to the root of the uncorrected second moment ("epsilon hat" of Kingma and Ba).
        adam_global_clipnorm: all gradients are scaled down together to this L2 norm; None means never.
        schedule: after the warmup, of SCHEDULES.
        learning_rate_factors: see AdamWeightDecay.
        skip_nonfinite_steps: see AdamWeightDecay.
        ema_momentum: of a moving average of the weights, which are there within `optimizer.averaged()`; None means no
            average.

    Returns:
        The optimizer, and its schedule for plotting: a function of the step.
    """
    schedule = SCHEDULES[schedule](init_lr, num_train_steps, num_warmup_steps)
    optimizer = AdamWeightDecay(
        learning_rate=schedule,
        weight_decay=weight_decay_rate,
        beta_1=adam_beta1,
        beta_2=adam_beta2,
        epsilon=adam_epsilon,
        global_clipnorm=adam_global_clipnorm,
        learning_rate_factors=learning_rate_factors,
        skip_nonfinite_steps=skip_nonfinite_steps,
        use_ema=ema_momentum is not None,
        ema_momentum=0.99 if ema_momentum is None else ema_momentum,
        ends_with_averages=False,
    )
    return optimizer, schedule

"""What training holds in memory beside the weights, as arrays: to be kept, and to be put back bit for bit."""

from collections.abc import Mapping

import keras
import numpy as np

from tf_finetune.errors import InputError

METRICS = "metrics/"


def arrays_of(model: keras.Model) -> dict[str, np.ndarray]:
    """Slots and counters of the optimizer, seeds of the dropouts, and the weights that the model's own files hold in
    another form: those with LoRA's factors, which are merged there, and those that are averaged there."""
    return _arrays(_others(model))


def metrics_of(model: keras.Model) -> dict[str, np.ndarray]:
    """How far the metrics of an epoch have come; `fit` sets them back whenever it begins."""
    return _arrays(_metrics(model))


def split(arrays: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """What `arrays_of` gave and what `metrics_of` gave, of both together."""
    metrics = {name: array for name, array in arrays.items() if name.startswith(METRICS)}
    return {name: array for name, array in arrays.items() if name not in metrics}, metrics


def restore(model: keras.Model, arrays: Mapping[str, np.ndarray]) -> None:
    """Puts back what `arrays_of` gave, into a model that is built and compiled in the same way.

    Raises:
        InputError: the arrays are those of another model or optimizer; nothing is changed then.
    """
    _assign(_others(model), arrays)


def restore_metrics(model: keras.Model, arrays: Mapping[str, np.ndarray]) -> None:
    """Puts back what `metrics_of` gave, into metrics that are built.

    Raises:
        InputError: the arrays are those of other metrics; nothing is changed then.
    """
    _assign(_metrics(model), arrays)


def _assign(variables: Mapping[str, keras.Variable], arrays: Mapping[str, np.ndarray]) -> None:
    shapes = {name: tuple(variable.shape) for name, variable in variables.items()}
    for name in sorted(shapes.keys() | arrays.keys()):
        expected, got = shapes.get(name), arrays[name].shape if name in arrays else None
        if expected != got:
            expected, got = ("none" if shape is None else f"one of shape {shape}" for shape in (expected, got))
            raise InputError("the training state is not of this model", where=name, expected=expected, got=got)
    for name, array in arrays.items():
        variables[name].assign(array)


def _others(model: keras.Model) -> dict[str, keras.Variable]:
    # Every weight has a path of its own, as every layer has a name; generators of seeds are numbered by Keras as they
    # are made, so that only their order says which is which.
    found = {f"optimizer/{variable.path}": variable for variable in model.optimizer.variables}
    seeds = [variable for variable in model.variables if variable.path.endswith("seed_generator_state")]
    found |= {f"seeds/{number}": variable for number, variable in enumerate(seeds)}
    return found | {f"weights/{variable.path}": variable for variable in _in_another_form(model)}


def _in_another_form(model: keras.Model) -> list[keras.Variable]:
    adapted = {variable.path.rpartition("/")[0] for variable in model.weights if variable.name.startswith("lora_")}
    averaged = {variable.path for variable in model.trainable_variables if model.optimizer.use_ema}
    return [v for v in model.weights if v.path in averaged or v.path.rpartition("/")[0] in adapted]


def _metrics(model: keras.Model) -> dict[str, keras.Variable]:
    return {f"{METRICS}{number}": variable for number, variable in enumerate(model.metrics_variables)}


def _arrays(variables: Mapping[str, keras.Variable]) -> dict[str, np.ndarray]:
    return {name: np.array(variable.numpy()) for name, variable in variables.items()}

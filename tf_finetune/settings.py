"""Experiment configs as files, text and JSON: find, load, check, and hand each room its plain arguments."""

import copy
import dataclasses
import difflib
import enum
import importlib.util
import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tf_finetune.config import Backend, ExperimentConfig, LoraTargets, Strategy
from tf_finetune.errors import InputError
from tf_finetune.readers.rows import Columns

# The strategies that one backend alone has.
OF_TENSORFLOW, OF_JAX = (Strategy.MIRRORED, Strategy.TPU), (Strategy.DATA_PARALLEL,)
_RATE_OR_THEIRS = ("-1 (the checkpoint's), or at least 0 and below 1", lambda value: value == -1 or 0 <= value < 1)
# (field, the values it may take in words, the test)
_LIMITS = (
    ("data.max_length", "at least 3: [CLS], one token, [SEP]", lambda value: value >= 3),
    ("data.max_examples", "0 (all) or more", lambda value: value >= 0),
    ("data.validation_examples", "0 (a tenth of train) or more", lambda value: value >= 0),
    ("data.replay", "0 (nothing of the earlier run) or more", lambda value: value >= 0),
    ("data.folds", "0 (no cross-validation) or at least 2", lambda value: value == 0 or value >= 2),
    ("data.fold", "0 or more", lambda value: value >= 0),
    ("model.freeze_layers", "0 (none) or more", lambda value: value >= 0),
    ("model.reinit_layers", "0 (none) or more", lambda value: value >= 0),
    ("model.lora_rank", "0 (every weight is trained) or more", lambda value: value >= 0),
    ("model.lora_alpha", "0 (the rank) or more", lambda value: value >= 0),
    ("model.hidden_dropout", *_RATE_OR_THEIRS),
    ("model.attention_dropout", *_RATE_OR_THEIRS),
    ("model.classifier_dropout", *_RATE_OR_THEIRS),
    ("optimizer.layer_decay", "above 0 and at most 1", lambda value: 0 < value <= 1),
    ("optimizer.ema_momentum", "at least 0 (no average) and below 1", lambda value: 0 <= value < 1),
    ("train.label_smoothing", "at least 0 and below 1", lambda value: 0 <= value < 1),
    ("optimizer.learning_rate", "more than 0", lambda value: value > 0),
    ("optimizer.weight_decay", "0 or more", lambda value: value >= 0),
    ("optimizer.warmup_proportion", "between 0 and 1", lambda value: 0 <= value <= 1),
    ("optimizer.warmup_steps", "0 (use warmup_proportion) or more", lambda value: value >= 0),
    ("optimizer.beta_1", "at least 0 and below 1", lambda value: 0 <= value < 1),
    ("optimizer.beta_2", "at least 0 and below 1", lambda value: 0 <= value < 1),
    ("optimizer.epsilon", "more than 0", lambda value: value > 0),
    ("optimizer.max_grad_norm", "0 (never clip) or more", lambda value: value >= 0),
    ("train.epochs", "1 or more", lambda value: value >= 1),
    ("train.batch_size", "1 or more", lambda value: value >= 1),
    ("train.batch_tokens", "-1 (use batch_size), 0 (the most that fits) or more", lambda value: value >= -1),
    ("train.accumulation_steps", "1 (the whole batch at once) or more", lambda value: value >= 1),
    ("train.num_shapes", "0 (each batch its own) to 8", lambda value: 0 <= value <= 8),
    ("train.eval_batch_size", "1 or more", lambda value: value >= 1),
    ("train.validate_every_steps", "0 (at the end of each epoch) or more", lambda value: value >= 0),
    ("train.early_stopping_patience", "0 (never) or more", lambda value: value >= 0),
    ("train.checkpoint_every_steps", "0 (never) or more", lambda value: value >= 0),
    ("train.checkpoint_every_minutes", "0 (never) or more", lambda value: value >= 0),
    ("train.keep_checkpoints", "1 or more", lambda value: value >= 1),
    ("train.max_skipped_steps", "0 (stop at the first) or more", lambda value: value >= 0),
    ("train.log_every_steps", "1 or more", lambda value: value >= 1),
    ("export.compared_examples", "0 (all) or more", lambda value: value >= 0),
    ("runtime.seed", "between 0 and 2**32 - 1", lambda value: 0 <= value < 2**32),
)


# (field, what it may be beside the others, the test): nothing is accepted and then ignored.
_BESIDE = (
    ("data.fold", "below data.folds", lambda v: v["data.fold"] < max(1, v["data.folds"])),
    ("model.lora_alpha", "0 without model.lora_rank", lambda v: v["model.lora_rank"] or not v["model.lora_alpha"]),
    (
        "model.lora_targets",
        "qkv without model.lora_rank",
        lambda v: v["model.lora_rank"] or v["model.lora_targets"] is LoraTargets.QKV,
    ),
    (
        "model.reinit_layers",
        "0 beside model.lora_rank, as fresh blocks would stay random",
        lambda v: not (v["model.lora_rank"] and v["model.reinit_layers"]),
    ),
    (
        "runtime.strategy",
        "auto, one_device or data_parallel beside runtime.backend=jax",
        lambda v: v["runtime.backend"] is not Backend.JAX or v["runtime.strategy"] not in OF_TENSORFLOW,
    ),
    (
        "runtime.strategy",
        "auto, one_device, mirrored or tpu beside runtime.backend=tensorflow",
        lambda v: v["runtime.backend"] is not Backend.TENSORFLOW or v["runtime.strategy"] not in OF_JAX,
    ),
    (
        "train.num_shapes",
        "1 to 8 beside runtime.strategy=tpu, which compiles for every shape",
        lambda v: v["runtime.strategy"] is not Strategy.TPU or v["train.num_shapes"],
    ),
    (
        "train.accumulation_steps",
        "1 beside runtime.strategy=tpu, whose shapes are fixed",
        lambda v: v["runtime.strategy"] is not Strategy.TPU or v["train.accumulation_steps"] == 1,
    ),
)


def load(name: str) -> ExperimentConfig:
    """The config a name stands for.

    Args:
        name: a Python file with `get_config()`, the bare name of one in `configs/`, either followed by
            `:ARGUMENT` for `get_config`, or the config.json of an earlier run.

    Raises:
        InputError: no such file, an error inside it, or it returns something else.
    """
    if name.endswith(".json") and Path(name).expanduser().is_file():
        return load_json(Path(name).expanduser())
    location, separator, argument = name.partition(":")
    path = _find(location)
    try:
        spec = importlib.util.spec_from_file_location(f"tf_finetune_config_{path.stem}", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        config = module.get_config(*([argument] if separator else []))
    except InputError:
        raise
    except Exception as error:  # the file is the user's code: whatever it raises is theirs to see
        where = f"{path}{_line_in(path, error)}"
        if match := re.match(r"'(\w+)Config' object has no attribute '(\w+)'", str(error)):
            check_field(match[2] if match[1] == "Experiment" else f"{match[1].lower()}.{match[2]}", where=where)
        got = f"{type(error).__name__}: {error}"
        raise InputError(
            "the config file failed", where=where, expected="get_config() -> ExperimentConfig", got=got
        ) from None
    if not isinstance(config, ExperimentConfig):
        raise InputError(
            "get_config() returned something else",
            where=path,
            expected="an ExperimentConfig",
            got=type(config).__name__,
        )
    return config


def config_folder() -> Path:
    """Where bare names are looked up: inside an installed package, else beside it in a checkout."""
    package = Path(__file__).parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def config_names() -> list[str]:
    """The configs that come with the package."""
    return sorted(path.stem for path in config_folder().glob("*.py") if path.stem != "__init__")


def _find(location: str) -> Path:
    path = Path(location).expanduser()
    if location in config_names():
        path = config_folder() / f"{location}.py"
    if path.suffix == ".py" and path.is_file():
        return path
    expected = f"a .py file, or one of {', '.join(config_names())}"
    if Path(location).suffix in (".csv", ".tsv", ".jsonl", ".parquet", ".gz"):
        expected = f"my_data:{location} for a file of your own"
    raise InputError("no such config file", where="--config", expected=expected, got=location)


def _line_in(path: Path, error: BaseException) -> str:
    """` line N` of the config file where the error came from, as far as it can be told."""
    if isinstance(error, SyntaxError):
        return f" line {error.lineno}"
    lines, traceback = [], error.__traceback__
    while traceback is not None:
        if Path(traceback.tb_frame.f_code.co_filename) == path.absolute():
            lines.append(traceback.tb_lineno)
        traceback = traceback.tb_next
    return f" line {lines[-1]}" if lines else ""


def load_json(path: Path) -> ExperimentConfig:
    """The config a run wrote.

    Raises:
        InputError: it cannot be read, or has a field that does not exist.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError("no such config file", where="--config", got=path) from None
    except (OSError, ValueError) as error:
        raise InputError("unreadable config file", where=path, got=str(error)) from None
    return from_dict(content, where=path)


def from_dict(content: Any, *, where: Path) -> ExperimentConfig:
    """The config that `to_dict` gave, read from a file.

    Raises:
        InputError: it is none, or has a field that does not exist.
    """
    if not isinstance(content, dict) or not all(isinstance(values, dict) for values in content.values()):
        raise InputError("unreadable config file", where=where, expected="an object a section", got="something else")
    config = ExperimentConfig()
    given = {f"{section}.{name}": value for section, values in content.items() for name, value in values.items()}
    for name, value in given.items():
        _set(config, name, value, where=where)
    return config


def _set(config: ExperimentConfig, name: str, value: Any, *, where: object) -> None:
    """Gives a `section.field` a value; one of an Enum may be given by what it stands for."""
    check_field(name, where=where)
    section, field = name.split(".")
    kind = type(getattr(getattr(config, section), field))
    if issubclass(kind, enum.Enum):
        value = next((member for member in kind if member.value == value), value)
    setattr(getattr(config, section), field, value)


def fields(config: ExperimentConfig) -> Iterator[tuple[str, Any]]:
    """Every `section.field` and its value."""
    for section in dataclasses.fields(config):
        values = getattr(config, section.name)
        for field in dataclasses.fields(values):
            yield f"{section.name}.{field.name}", getattr(values, field.name)


def check_field(name: str, *, where: object) -> None:
    """Refuses a `section.field` that does not exist, and names the nearest that does."""
    known = [field for field, _ in fields(ExperimentConfig())]
    inside = [field for field in known if field.startswith(f"{name}.")]
    if inside:
        raise InputError(f"{name} is a section of the config", where=where, expected="one of " + ", ".join(inside))
    if name not in known:
        raise InputError(f"no config field {name}", where=where, expected=f"one like {_nearest(name, known)}")


def _nearest(name: str, known: list[str]) -> str:
    """What a mistyped field most likely means: by its initials (lr), else by its spelling, section first."""
    section, _, field = name.rpartition(".")
    for candidate in sorted(known, key=lambda candidate: not candidate.startswith(("optimizer.", f"{section}."))):
        if candidate == f"{section}.{field}" or "".join(w[0] for w in candidate.rpartition(".")[2].split("_")) == field:
            return candidate
    if not section and (sections := difflib.get_close_matches(field, {c.partition(".")[0] for c in known}, n=1)):
        return sections[0]
    inside = [candidate for candidate in known if candidate.startswith(section + ".")]
    return difflib.get_close_matches(name, inside or known, n=1, cutoff=0.0)[0]


def validated(config: ExperimentConfig) -> ExperimentConfig:
    """The config, once every value has the type and the range its field asks for.

    Raises:
        InputError: one has not.
    """
    for section in dataclasses.fields(config):
        if not isinstance(getattr(config, section.name), section.type):
            got = type(getattr(config, section.name)).__name__
            raise InputError(f"wrong value for {section.name}", expected=section.type.__name__, got=got)
    values = dict(fields(config))
    for name, value in values.items():
        check_value(name, value)
    for name, expected, holds in _BESIDE:
        if not holds(values):
            raise InputError(f"wrong value for {name}", expected=expected, got=plain(values[name]))
    return config


def check_value(name: str, value: Any) -> None:
    """Refuses a value of another type than the field's, or outside of its range.

    Raises:
        InputError: as said.
    """
    kind = type(dict(fields(ExperimentConfig()))[name])
    is_whole = kind is float and type(value) is int
    if not is_whole and (type(value) is not kind or (kind is float and not math.isfinite(value))):
        raise InputError(f"wrong value for {name}", expected=kind.__name__, got=repr(value))
    for field, expected, holds in _LIMITS:
        if field == name and not holds(value):
            raise InputError(f"wrong value for {name}", expected=expected, got=value)


def with_values(config: ExperimentConfig, values: Mapping[str, Any]) -> ExperimentConfig:
    """A copy with other values of some `section.field`s.

    Raises:
        InputError: there is no such field.
    """
    config = copy.deepcopy(config)
    for name, value in values.items():
        _set(config, name, value, where="the values of a config")
    return config


def with_places(config: ExperimentConfig, source: str, checkpoint: str) -> ExperimentConfig:
    """A copy with another data.source and model.checkpoint."""
    return with_values(config, {"data.source": source, "model.checkpoint": checkpoint})


def to_dict(config: ExperimentConfig) -> dict[str, dict[str, Any]]:
    """JSON-ready: every field, Enums by value."""
    content: dict[str, dict[str, Any]] = {}
    for name, value in fields(config):
        section, field = name.split(".")
        content.setdefault(section, {})[field] = plain(value)
    return content


def plain(value: Any) -> Any:
    """A field's value as JSON has it."""
    return value.value if isinstance(value, enum.Enum) else value


def to_text(config: ExperimentConfig) -> str:
    """One line a section, as printed at the start of a run."""
    return "\n".join(
        f"{section}: " + ", ".join(f"{field}={value}" for field, value in values.items())
        for section, values in to_dict(config).items()
    )


def source_options(config: ExperimentConfig) -> dict[str, Any]:
    """Arguments of data.sources.load."""
    return {
        "source": config.data.source,
        "columns": Columns(
            text=config.data.text_column,
            label=config.data.label_column,
            text_pair=config.data.text_pair_column,
            weight=config.data.weight_column,
            slices=tuple(slice_columns(config)),
        ),
        "problem_type": config.model.problem_type,
        "max_examples": config.data.max_examples,
        "validation_examples": config.data.validation_examples,
        "folds": config.data.folds,
        "fold": config.data.fold,
        "seed": config.runtime.seed,
    }


def slice_columns(config: ExperimentConfig) -> list[str]:
    """The names in data.slice_columns, each once."""
    return list(dict.fromkeys(filter(None, map(str.strip, config.data.slice_columns.split(",")))))


def dropout_overrides(config: ExperimentConfig) -> dict[str, float]:
    """Overrides of a config.json's rates, where the config has its own."""
    rates = {
        "hidden_dropout_prob": config.model.hidden_dropout,
        "attention_probs_dropout_prob": config.model.attention_dropout,
        "classifier_dropout": config.model.classifier_dropout,
    }
    return {name: rate for name, rate in rates.items() if rate >= 0}


def classifier_options(config: ExperimentConfig) -> dict[str, Any]:
    """Arguments of evaluation.classifier.Classifier."""
    return {
        "max_length": config.data.max_length,
        "truncation": config.data.truncation,
        "batch_size": config.train.eval_batch_size,
        "num_shapes": config.train.num_shapes,
    }

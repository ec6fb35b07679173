import enum
import inspect
import json

import pytest

from tf_finetune import settings
from tf_finetune.config import Backend, ExperimentConfig, LoraTargets, Precision, Strategy, Truncation
from tf_finetune.data import sources
from tf_finetune.errors import InputError
from tf_finetune.evaluation.classifier import Classifier

# (field, the nearest value that is refused, the nearest that is taken)
LIMITS = [
    ("data.max_length", 2, 3),
    ("data.max_examples", -1, 0),
    ("data.validation_examples", -1, 0),
    ("data.replay", -1e-9, 0.0),
    ("data.folds", -1, 0),
    ("data.folds", 1, 2),
    ("data.fold", -1, 0),
    ("model.freeze_layers", -1, 0),
    ("model.reinit_layers", -1, 0),
    ("model.lora_rank", -1, 0),
    ("model.lora_alpha", -0.1, 0.0),
    ("model.hidden_dropout", -0.5, 0.0),
    ("model.hidden_dropout", 1.0, 0.99),
    ("model.attention_dropout", -0.5, 0.0),
    ("model.classifier_dropout", -0.5, -1.0),
    ("optimizer.layer_decay", 0.0, 1e-30),
    ("optimizer.layer_decay", 1.01, 1.0),
    ("optimizer.ema_momentum", -1e-9, 0.0),
    ("optimizer.ema_momentum", 1.0, 0.9999),
    ("train.label_smoothing", -1e-9, 0.0),
    ("train.label_smoothing", 1.0, 0.99),
    ("optimizer.learning_rate", 0.0, 1e-30),
    ("optimizer.weight_decay", -1e-9, 0.0),
    ("optimizer.warmup_proportion", -1e-9, 0.0),
    ("optimizer.warmup_proportion", 1.0001, 1.0),
    ("optimizer.warmup_steps", -1, 0),
    ("optimizer.beta_1", -1e-9, 0.0),
    ("optimizer.beta_1", 1.0, 0.9999),
    ("optimizer.beta_2", -1e-9, 0.0),
    ("optimizer.beta_2", 1.0, 0.9999),
    ("optimizer.epsilon", 0.0, 1e-30),
    ("optimizer.max_grad_norm", -1e-9, 0.0),
    ("train.epochs", 0, 1),
    ("train.batch_size", 0, 1),
    ("train.batch_tokens", -2, -1),
    ("train.accumulation_steps", 0, 1),
    ("train.num_shapes", -1, 0),
    ("train.num_shapes", 9, 8),
    ("train.eval_batch_size", 0, 1),
    ("train.early_stopping_patience", -1, 0),
    ("train.validate_every_steps", -1, 0),
    ("train.checkpoint_every_steps", -1, 0),
    ("train.checkpoint_every_minutes", -0.1, 0.0),
    ("train.keep_checkpoints", 0, 1),
    ("train.max_skipped_steps", -1, 0),
    ("train.log_every_steps", 0, 1),
    ("export.compared_examples", -1, 0),
    ("runtime.seed", -1, 0),
    ("runtime.seed", 2**32, 2**32 - 1),
]
FLOAT_FIELDS = [name for name, value in settings.fields(ExperimentConfig()) if type(value) is float]


def changed(name, value):
    config = ExperimentConfig()
    section, field = name.split(".")
    setattr(getattr(config, section), field, value)
    return config


def write_config(folder, body, name="mine.py"):
    path = folder / name
    path.write_text(f"from tf_finetune.config import ExperimentConfig\n\n\n{body}\n", encoding="utf-8")
    return path


# (fields together, what is said of which of them)
CONTRADICTIONS = [
    ({"data.fold": 1}, r"data\.fold, expected below data\.folds, got 1"),
    ({"data.folds": 4, "data.fold": 4}, r"data\.fold, expected below data\.folds, got 4"),
    ({"model.lora_alpha": 8.0}, r"model\.lora_alpha, expected 0 without model\.lora_rank, got 8\.0"),
    ({"model.lora_targets": LoraTargets.ALL_LINEAR}, r"model\.lora_targets, expected qkv without .*, got all_linear"),
    (
        {"runtime.backend": Backend.JAX, "runtime.strategy": Strategy.MIRRORED},
        r"runtime\.strategy, expected auto, one_device or data_parallel beside runtime\.backend=jax, got mirrored",
    ),
    (
        {"runtime.backend": Backend.TENSORFLOW, "runtime.strategy": Strategy.DATA_PARALLEL},
        r"runtime\.strategy, expected auto, .* beside runtime\.backend=tensorflow, got data_parallel",
    ),
    (
        {"runtime.strategy": Strategy.TPU},
        r"train\.num_shapes, expected 1 to 8 beside runtime\.strategy=tpu, which compiles for every shape, got 0",
    ),
    (
        {"runtime.strategy": Strategy.TPU, "train.num_shapes": 4, "train.accumulation_steps": 2},
        r"train\.accumulation_steps, expected 1 beside runtime\.strategy=tpu, whose shapes are fixed, got 2",
    ),
    ({"model.lora_rank": 4, "model.reinit_layers": 1}, r"model\.reinit_layers, expected 0 beside model\.lora_rank.*1"),
]


@pytest.mark.parametrize(("values", "said"), CONTRADICTIONS)
def test_what_would_be_ignored_or_undone_is_refused(values, said):
    config = ExperimentConfig()
    for name, value in values.items():
        section, field = name.split(".")
        setattr(getattr(config, section), field, value)
    with pytest.raises(InputError, match=rf"wrong value for {said}"):
        settings.validated(config)


class TestLoad:
    def test_python_file(self, tmp_path):
        body = "def get_config():\n    c = ExperimentConfig()\n    c.train.epochs = 9\n    return c"
        assert settings.load(str(write_config(tmp_path, body))).train.epochs == 9

    def test_bare_name(self):
        assert settings.load("reviews_minilm").data.source == "reviews"

    @pytest.mark.parametrize("name", settings.config_names())
    def test_every_config_of_the_package_is_valid(self, name):
        settings.validated(settings.load(name))

    def test_argument_after_colon(self):
        assert settings.load("my_data:/some/reviews.csv").data.source == "/some/reviews.csv"

    def test_argument_may_hold_colons(self):
        assert settings.load("my_data:a:b").data.source == "a:b"

    def test_no_such_file_names_the_known_ones(self):
        with pytest.raises(
            InputError,
            match=r"no such config file, in --config, .*my_data, review_ratings, reviews_minilm, smoke, "
            r"snli_bert_base, got nowhere",
        ):
            settings.load("nowhere")

    def test_file_without_py_suffix_is_no_config(self, tmp_path):
        path = write_config(tmp_path, "", name="mine.yaml")
        with pytest.raises(InputError, match=r"no such config file.*expected a \.py file"):
            settings.load(str(path))

    def test_syntax_error_names_its_line(self, tmp_path):
        path = write_config(tmp_path, "def get_config(:\n    pass")
        with pytest.raises(InputError, match=r"the config file failed, in .*mine\.py line 4.*SyntaxError"):
            settings.load(str(path))

    def test_exception_names_its_line(self, tmp_path):
        path = write_config(tmp_path, "def get_config():\n    x = 1\n    raise RuntimeError('boom')")
        with pytest.raises(InputError, match=r"mine\.py line 6.*got RuntimeError: boom"):
            settings.load(str(path))

    def test_exception_names_its_line_for_a_relative_path(self, tmp_path, monkeypatch):
        write_config(tmp_path, "def get_config():\n    raise RuntimeError('boom')")
        monkeypatch.chdir(tmp_path)
        with pytest.raises(InputError, match=r"mine\.py line 5.*got RuntimeError: boom"):
            settings.load("mine.py")

    def test_mistyped_field_in_a_file_names_its_line(self, tmp_path):
        body = "def get_config():\n    c = ExperimentConfig()\n    c.data.sorce = 'x'\n    return c"
        with pytest.raises(
            InputError, match=r"no config field data.sorce, in .*mine\.py line 6, expected one like data.source"
        ):
            settings.load(str(write_config(tmp_path, body)))

    @pytest.mark.parametrize(
        ("typed", "nearest"),
        [("optimizer.lr", "optimizer.learning_rate"), ("epochs", "train.epochs"), ("optimzer", "optimizer")],
    )
    def test_nearest_field(self, typed, nearest):
        with pytest.raises(InputError, match=f"no config field {typed}, in here, expected one like {nearest}$"):
            settings.check_field(typed, where="here")

    def test_a_table_in_the_place_of_a_config(self):
        with pytest.raises(InputError, match=r"expected my_data:tickets\.csv for a file of your own, got tickets\.csv"):
            settings.load("tickets.csv")

    def test_without_get_config(self, tmp_path):
        path = write_config(tmp_path, "config = ExperimentConfig()")
        with pytest.raises(InputError, match=r"expected get_config\(\) -> ExperimentConfig.*no attribute 'get_config'"):
            settings.load(str(path))

    def test_wrong_return(self, tmp_path):
        path = write_config(tmp_path, "def get_config():\n    return {}")
        with pytest.raises(
            InputError, match=r"get_config\(\) returned something else, .*expected an ExperimentConfig, got dict"
        ):
            settings.load(str(path))

    def test_argument_for_a_config_that_takes_none(self):
        with pytest.raises(InputError, match=r"got TypeError: get_config\(\) takes 0 positional arguments"):
            settings.load("reviews_minilm:something")


class TestJson:
    def test_round_trip(self, tmp_path):
        config = changed("data.truncation", Truncation.HEAD_TAIL)
        config.runtime.precision = Precision.BFLOAT16
        config.optimizer.learning_rate = 1e-4
        config.data.source = "ünïcode.csv"
        path = tmp_path / "config.json"
        path.write_text(json.dumps(settings.to_dict(config)), encoding="utf-8")
        assert settings.load(str(path)) == config

    def test_fields_left_out_keep_their_defaults(self, tmp_path):
        path = tmp_path / "config.json"
        path.write_text('{"train": {"epochs": 7}}')
        assert settings.load(str(path)) == changed("train.epochs", 7)

    def test_mistyped_field_names_the_nearest(self, tmp_path):
        path = tmp_path / "config.json"
        path.write_text('{"data": {"sorce": "x"}}')
        with pytest.raises(InputError, match=r"no config field data\.sorce, in .*expected one like data\.source"):
            settings.load(str(path))

    def test_missing_file(self, tmp_path):
        with pytest.raises(
            InputError, match=r"no such config file, in --config, expected a .py file, .*, got .*absent\.json"
        ):
            settings.load(str(tmp_path / "absent.json"))

    def test_broken_json(self, tmp_path):
        path = tmp_path / "config.json"
        path.write_text("{")
        with pytest.raises(InputError, match=r"unreadable config file, in .*config\.json, got .*line 1"):
            settings.load(str(path))

    @pytest.mark.parametrize("content", ["[]", "3", '{"data": 3}'])
    def test_json_of_another_shape(self, tmp_path, content):
        path = tmp_path / "config.json"
        path.write_text(content)
        with pytest.raises(
            InputError, match=r"unreadable config file, in .*config\.json, expected an object a section"
        ):
            settings.load(str(path))

    def test_unknown_enum_value(self, tmp_path):
        path = tmp_path / "config.json"
        path.write_text('{"data": {"truncation": "middle"}}')
        with pytest.raises(InputError, match=r"wrong value for data\.truncation, .*got 'middle'"):
            settings.validated(settings.load(str(path)))


class TestCheckField:
    def test_known_field_passes(self):
        settings.check_field("data.source", where="here")

    @pytest.mark.parametrize(
        ("typed", "nearest"),
        [
            ("train.epoch", "train.epochs"),
            ("source", "data.source"),
            ("data.maxlength", "data.max_length"),
        ],
    )
    def test_mistyped_field_names_the_nearest(self, typed, nearest):
        with pytest.raises(
            InputError, match=f"no config field {typed}, in the command line, expected one like {nearest}$"
        ):
            settings.check_field(typed, where="the command line")


class TestValidated:
    def test_defaults_pass_and_come_back(self):
        config = ExperimentConfig()
        assert settings.validated(config) is config

    @pytest.mark.parametrize(
        ("name", "value", "expected"),
        [
            ("train.epochs", "3", r"expected int, got '3'"),
            ("train.epochs", 3.0, r"expected int, got 3\.0"),
            ("train.epochs", True, r"expected int, got True"),
            ("train.epochs", None, r"expected int, got None"),
            ("data.source", 3, r"expected str, got 3"),
            ("data.truncation", "head", r"expected Truncation, got 'head'"),
            ("optimizer.learning_rate", "1e-4", r"expected float, got '1e-4'"),
            ("optimizer.learning_rate", True, r"expected float, got True"),
            ("export.verify", 1, r"expected bool, got 1"),
        ],
    )
    def test_wrong_type(self, name, value, expected):
        with pytest.raises(InputError, match=rf"wrong value for {name}, {expected}"):
            settings.validated(changed(name, value))

    @pytest.mark.parametrize("name", FLOAT_FIELDS)
    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_not_finite(self, name, value):
        with pytest.raises(InputError, match=rf"wrong value for {name}, expected float, got {value}"):
            settings.validated(changed(name, value))

    def test_whole_number_is_taken_for_a_float(self):
        settings.validated(changed("optimizer.weight_decay", 1))

    @pytest.mark.parametrize(("name", "refused", "taken"), LIMITS)
    def test_limit(self, name, refused, taken):
        settings.validated(changed(name, taken))
        with pytest.raises(InputError, match=f"wrong value for {name}, expected .+, got {refused}$"):
            settings.validated(changed(name, refused))

    def test_every_number_has_a_limit(self):
        numbers = {name for name, value in settings.fields(ExperimentConfig()) if type(value) in (int, float)}
        assert numbers == {name for name, _, _ in LIMITS}


class TestArguments:
    def test_to_text_has_a_line_a_section(self):
        lines = settings.to_text(ExperimentConfig()).splitlines()
        assert [line.split(":")[0] for line in lines] == ["model", "data", "optimizer", "train", "runtime", "export"]
        assert "max_length=128, truncation=head" in lines[1]

    def test_source_options_are_arguments_of_load(self):
        assert set(settings.source_options(ExperimentConfig())) <= set(inspect.signature(sources.load).parameters)

    def test_classifier_options_are_arguments_of_classifier(self):
        assert set(settings.classifier_options(ExperimentConfig())) <= set(inspect.signature(Classifier).parameters)


def test_what_a_flag_takes_is_what_config_json_has():
    """An Enum's flag takes the names of its members, config.json has their values."""
    for name, value in settings.fields(ExperimentConfig()):
        if isinstance(value, enum.Enum):
            assert [member.name.lower() for member in type(value)] == [member.value for member in type(value)], name


def test_other_values_by_what_they_stand_for():
    values = {"runtime.precision": "float32", "train.epochs": 7}
    changed = settings.with_values(ExperimentConfig(), values)
    assert changed.runtime.precision is Precision.FLOAT32
    assert settings.validated(changed).train.epochs == 7


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("train.epoch", "no config field train.epoch, in the values of a config, expected one like train.epochs"),
        ("epochs", "no config field epochs, .* expected one like train.epochs"),
        ("train", "train is a section of the config"),
    ],
)
def test_other_values_of_no_field(name, message):
    with pytest.raises(InputError, match=message):
        settings.with_values(ExperimentConfig(), {name: 1})

import ast
import dataclasses
import inspect

import pytest

from tf_finetune import config
from tf_finetune.config import ExperimentConfig, Precision, Truncation

# Names people type on the command line and in config files; renaming one breaks them.
PROMISED_FIELDS = [
    "model.checkpoint",
    "data.source",
    "data.text_column",
    "data.label_column",
    "data.max_length",
    "data.truncation",
    "data.max_examples",
    "optimizer.learning_rate",
    "optimizer.weight_decay",
    "optimizer.warmup_proportion",
    "optimizer.warmup_steps",
    "train.epochs",
    "train.batch_size",
    "train.early_stopping_patience",
    "runtime.seed",
    "runtime.precision",
]


@pytest.mark.parametrize("name", PROMISED_FIELDS)
def test_promised_field_exists(name):
    section, field = name.split(".")
    assert hasattr(getattr(ExperimentConfig(), section), field)


def test_two_configs_share_no_section():
    first, second = ExperimentConfig(), ExperimentConfig()
    first.data.max_length = 7
    assert second.data.max_length != 7


@pytest.mark.parametrize("section", [field.name for field in dataclasses.fields(ExperimentConfig)])
def test_unknown_field_cannot_be_set(section):
    with pytest.raises(AttributeError, match="no attribute 'mistyped'"):
        getattr(ExperimentConfig(), section).mistyped = 1


def test_enum_values_are_what_users_type():
    assert [value.value for value in Truncation] == ["head", "tail", "head_tail"]
    assert [value.value for value in Precision] == ["auto", "float32", "bfloat16"]


def test_schema_imports_only_the_standard_library():
    tree = ast.parse(inspect.getsource(config))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported == {"dataclasses", "enum"}

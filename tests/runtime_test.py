"""What was asked for, and what it resolves to."""

import keras
import pytest

from tf_finetune import runtime
from tf_finetune.config import Precision


def test_the_policy_ends_with_the_block():
    before = keras.config.dtype_policy().name
    with runtime.precision_policy("mixed_bfloat16"):
        assert keras.config.dtype_policy().name == "mixed_bfloat16"
    assert keras.config.dtype_policy().name == before


@pytest.mark.parametrize(("native", "policy"), [(True, "mixed_bfloat16"), (False, "float32")])
def test_auto_follows_the_processor(native, policy, monkeypatch):
    monkeypatch.setattr(runtime, "has_native_bfloat16", lambda: native)
    assert runtime.training_policy(Precision.AUTO) == policy


def test_an_explicit_precision_does_not_ask_the_processor(monkeypatch):
    monkeypatch.setattr(runtime, "has_native_bfloat16", lambda: pytest.fail("asked"))
    assert runtime.training_policy(Precision.FLOAT32) == "float32"
    assert runtime.training_policy(Precision.BFLOAT16) == "mixed_bfloat16"


def test_the_description_names_versions_and_precision():
    described = runtime.describe("float32")
    assert keras.__version__ in described
    assert "float32" in described
    assert "(tensorflow)" in described

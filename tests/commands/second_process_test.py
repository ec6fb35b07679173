"""What is asked of TensorFlow in a process whose Keras is on JAX."""

import json

import pytest

from tf_finetune.commands import second_process
from tf_finetune.commands.predict import predict
from tf_finetune.commands.report import report
from tf_finetune.errors import InputError


@pytest.fixture
def on_jax(monkeypatch):
    monkeypatch.setattr(second_process, "is_needed", lambda: True)


def test_a_report_goes_there_with_all_that_was_asked(on_jax, monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(second_process, "run_on_tensorflow", lambda *arguments: asked.append(arguments))
    (tmp_path / "report.json").write_text(json.dumps({"run": 1}))
    assert report(tmp_path, audit=True, identity_terms="own.txt", out_of_fold="folds") == {"run": 1}
    assert asked == [("report", tmp_path, None, "--audit", "--identity_terms=own.txt", "--out_of_fold=folds")]


def test_an_explanation_is_refused(on_jax, tmp_path):
    with pytest.raises(InputError, match="explanations are computed on TensorFlow, in Keras, .* got JAX"):
        list(predict(tmp_path, ["good"], explain=True))


def test_the_last_line_of_a_process_that_failed_is_its_error(tmp_path):
    with pytest.raises(InputError, match="no trained model"):
        second_process.run_on_tensorflow("report", tmp_path, None, "--audit")

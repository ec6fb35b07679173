"""`export` with LiteRT and ONNX asked for: what is in their folders, and what happens when something is missing."""

import json

import films
import numpy as np
import pytest
import transformers

from tf_finetune import settings
from tf_finetune.commands import other_forms
from tf_finetune.commands.export import export
from tf_finetune.commands.restore import load_classifier, temperature_of, trained_run
from tf_finetune.commands.train import train
from tf_finetune.errors import InputError, RunError
from tf_finetune.serving import litert, onnx_files
from tf_finetune.workdir import Workdir

pytest.importorskip("onnx", reason="needs the `onnx` extra")
pytest.importorskip("onnxruntime", reason="needs the `onnx` extra")
pytest.importorskip("ai_edge_litert", reason="needs the `litert` extra")

TEXTS = ["the film is good and not dull", "bad", "a very great plot!"]


@pytest.fixture(scope="module")
def trained(tiny_checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("forms")
    train(films.one_epoch(films.write_films(folder / "films.csv"), tiny_checkpoint), folder / "run")
    return folder / "run"


@pytest.fixture(scope="module")
def run(trained):
    """The checkpoint, the config that asks for both, and the classifier."""
    config = settings.load_json(trained / "config.json")
    config.export.litert = config.export.onnx = True
    checkpoint, config = trained_run("export", trained, config)
    return config, checkpoint, load_classifier(checkpoint, config)


@pytest.fixture
def workdir(trained, tmp_path):
    """Another folder for the forms, with the run's config."""
    (tmp_path / "config.json").write_bytes((trained / "config.json").read_bytes())
    return tmp_path


def folders(workdir):
    return sorted(str(path.relative_to(workdir)) for path in workdir.glob("*/*"))


def test_export_writes_all_and_twice_gives_one_and_two(trained, capfd):
    config = settings.load_json(trained / "config.json")
    config.export.litert = config.export.onnx = True
    export(trained, config)
    config.export.verify = False  # once is enough
    export(trained, config)
    assert {"export/1", "export/2", "litert/1", "litert/2", "onnx/1", "onnx/2"} <= set(folders(trained))
    said = capfd.readouterr()
    assert said.err == ""
    assert "litert, compared with the checkpoint on" in said.out
    assert "examples of test" in said.out
    for name in ("model.tflite", "model.onnx", "model_int8.onnx"):
        assert f"  {name}" in said.out
    assert "exported to" in said.out


def test_a_folder_and_its_runtime_are_enough_for_an_answer(run, workdir):
    config, checkpoint, classifier = run
    for folder in other_forms.write_other_forms(workdir, config, checkpoint, classifier):
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        inputs = {name: np.int32(value) for name, value in tokenizer(TEXTS, padding=True, return_tensors="np").items()}
        for path in folder.glob("model*"):
            logits = (litert.litert_logits if path.suffix == ".tflite" else onnx_files.onnx_logits)(path)(inputs)
            np.testing.assert_allclose(logits, classifier.logits(TEXTS), atol=0.2, err_msg=path.name)
        content = json.loads((folder / "config.json").read_text())
        assert content["id2label"] == {"0": "neg", "1": "pos"}
        kept = json.loads((folder / "checkpoint_manifest.json").read_text())
        assert kept | {"temperature": temperature_of(checkpoint)} == json.loads(
            (checkpoint / "manifest.json").read_text()
        )
        assert "temperature" not in kept  # the head is divided by it


def test_nothing_is_written_where_nothing_is_asked_for(run, workdir, trained):
    _, checkpoint, classifier = run
    config = settings.load_json(trained / "config.json")
    assert other_forms.write_other_forms(workdir, config, checkpoint, classifier) == []
    assert folders(workdir) == []


@pytest.mark.parametrize(("form", "module", "pip"), [
    ("litert", "ai_edge_litert", "ai-edge-litert"), ("onnx", "onnxruntime", "onnxruntime"),
])  # fmt: skip
def test_a_missing_package_is_one_line_before_anything_is_written(trained, form, module, pip, monkeypatch):
    config, before = settings.load_json(trained / "config.json"), folders(trained)
    setattr(config.export, form, True)
    find = other_forms.importlib.util.find_spec
    monkeypatch.setattr(other_forms.importlib.util, "find_spec", lambda name: None if name == module else find(name))
    with pytest.raises(InputError) as refused:
        export(trained, config)
    line = f"this form needs {pip}, not installed here, in export.{form}, expected pip install {pip}"
    assert str(refused.value) == line
    assert folders(trained) == before


@pytest.mark.parametrize(("owner", "name"), [(litert, "save_litert"), (onnx_files, "save_onnx")])
def test_a_conversion_that_fails_or_is_stopped_leaves_no_folder(run, workdir, owner, name, monkeypatch):
    def half(model, path):
        (path / "half" if path.is_dir() else path).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(owner, name, half)
    with pytest.raises(KeyboardInterrupt):
        other_forms.write_other_forms(workdir, *run)
    assert not (workdir / ("litert" if owner is litert else "onnx") / "1").exists()
    assert not [path for path in workdir.rglob("*") if path.name == "half"]


def test_float32_onnx_that_answers_otherwise_is_refused(run, workdir, monkeypatch):
    config, checkpoint, classifier = run
    monkeypatch.setattr(onnx_files, "onnx_logits", lambda path: lambda inputs: np.eye(2, dtype=np.float32)[
        np.zeros(len(inputs["input_ids"]), int)])  # fmt: skip
    with pytest.raises(RunError, match="model.onnx does not answer as the checkpoint does: .* not published"):
        other_forms.write_other_forms(workdir, config, checkpoint, classifier)
    assert [name for name in folders(workdir) if name.startswith("onnx")] == []


def test_int8_that_lost_much_is_warned_of(run, workdir, monkeypatch, capsys):
    config, checkpoint, classifier = run
    monkeypatch.setattr(other_forms, "MOST_LOST", -101.0)
    other_forms.write_other_forms(workdir, config, checkpoint, classifier)
    assert "warning: model.tflite is 0.0 points worse than the checkpoint: accuracy" in capsys.readouterr().err


def test_a_model_too_large_is_refused(run, workdir, monkeypatch):
    monkeypatch.setattr(other_forms, "LARGEST_BYTES", 1000)
    with pytest.raises(InputError, match="the model is too large for LiteRT and ONNX, in .*, expected at most"):
        other_forms.write_other_forms(workdir, *run)


def test_few_examples_are_compared_where_the_config_says_so(run, workdir, capsys):
    config, checkpoint, classifier = run
    config = settings.from_dict(settings.to_dict(config), where=Workdir(workdir).config)
    config.export.compared_examples, config.export.litert = 3, False
    other_forms.write_other_forms(workdir, config, checkpoint, classifier)
    assert "on 3 examples of test" in capsys.readouterr().out

"""The Colab notebook: run from beginning to end, interrupted, and in step with its script."""

import ast
import base64
import json
import os
import re
import sys
import types
from importlib import metadata
from pathlib import Path

import jupytext
import nbclient
import pytest
from jupyter_client import KernelManager

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"
NOTEBOOK = NOTEBOOKS / "finetune_imdb.ipynb"
# Settings for a few hundred of the packaged reviews to teach the model something.
SHORT = {
    "data.max_length": 40,
    "model.freeze_embeddings": True,
    "optimizer.learning_rate": 2e-4,
    "train.epochs": 1,
    "train.batch_size": 8,
    "export.compared_examples": 40,
}


# A short way through JAX's compiler.
COMPILED_SOON = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"


@pytest.fixture
def build(monkeypatch):
    """The script behind `make notebook`."""
    monkeypatch.syspath_prepend(str(NOTEBOOKS))
    import build

    return build


@pytest.fixture
def environment(tmp_path, monkeypatch):
    """For a kernel on a CPU: what it keeps goes into a folder of the test's, and its streams are a notebook's own."""
    fake = tmp_path / "bin" / "nvidia-smi"
    fake.parent.mkdir()
    fake.write_text("#!/bin/sh\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "jupyter"))
    inherited = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
    ours = {"IPYTHONDIR": str(tmp_path / "ipython"), "PATH": f"{fake.parent}{os.pathsep}{os.environ['PATH']}"}
    return inherited | ours | {"CUDA_VISIBLE_DEVICES": "-1", "JAX_PLATFORMS": "cpu"}


def test_the_notebook_is_its_script_without_outputs(build):
    for path, text in build.built().items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name} is not what `make notebook` makes"


def test_the_repository_stands_in_the_badges(build, tmp_path, monkeypatch):
    for name in ("SCRIPT", "README"):
        path = tmp_path / getattr(build, name).name
        path.write_text(getattr(build, name).read_text(encoding="utf-8").replace('"OWNER/tf_finetune"', '"me/mine"'))
        monkeypatch.setattr(build, name, path)
    for text in build.built().values():
        assert re.findall(r"colab\.research\.google\.com/github/(.+?)/blob", text) == ["me/mine"]


@pytest.mark.parametrize(("backend", "examples"), [("tensorflow", 400), ("jax", 96)])
def test_all_of_it_on_the_packaged_reviews(backend, examples, environment, packaged_checkpoint, tmp_path):
    notebook = jupytext.read(NOTEBOOK)
    [parameters] = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ())]
    assert parameters.source.count("overrides = {}") == 1
    overrides = SHORT | {"data.max_examples": examples, "train.num_shapes": 1}
    parameters.source = parameters.source.replace("overrides = {}", f"overrides = {overrides}")
    place = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=600, resources=place).execute(
        env=environment | {"KERAS_BACKEND": backend, "XLA_FLAGS": COMPILED_SOON}
    )
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    printed, complained = ("".join(o.text for o in outputs if o.get("name") == name) for name in ("stdout", "stderr"))
    assert "CPU found; Keras 3" in printed
    assert f" on {backend}\n" in printed
    assert "Only a CPU is here" in printed
    complained = re.sub(
        "warning: .* the model may not be learning\n", "", complained
    )  # what it has learnt is seen below
    assert complained == "classifier newly initialised: train before use\n"
    assert not re.search("WARNING|INFO|Traceback", printed)

    run = tmp_path / "runs" / "reviews_minilm"
    measured = json.loads((run / "evaluation.json").read_text(encoding="utf-8"))["test"]
    assert measured["examples"] == examples
    if examples == 400:  # enough to learn from
        assert measured["roc_auc"] > 0.6
    assert re.search(rf"^test +{examples} +{measured['accuracy']:.4f} ", printed, flags=re.MULTILINE)
    shown = [output for output in outputs if "image/png" in output.get("data", {})]
    for output, words in zip(shown, ("Loss and accuracy", "Confusion matrix, test"), strict=True):
        assert base64.b64decode(output.data["image/png"]).startswith(b"\x89PNG")
        assert output.metadata["image/png"]["alt"].startswith(words)
        assert output.metadata["image/png"]["alt"] + "\n" in printed
    [page] = [output.data["text/html"] for output in outputs if "text/html" in output.get("data", {})]
    assert "test accuracy" in page
    assert "  kept    raw text answers as the checkpoint does" in printed
    assert "\nno promise is broken\n" in printed
    assert (run / "export" / "1" / "saved_model.pb").is_file()
    assert (run / "export.zip").stat().st_size > 2**20
    assert re.search(r"^(positive|negative) \(\d\d\.\d%\): I expected nothing", printed, flags=re.MULTILINE)


TRAIN = """
import tf_finetune
from tf_finetune import runtime, settings
runtime.quieten_libraries()
config = settings.load("smoke")
config.data.max_examples = 0
config.train.batch_size = 8
tf_finetune.train(config, "run")
"""


class Kernel:
    """One that cells are sent to, and interrupted."""

    def __init__(self, folder, environment):
        self.manager = KernelManager(kernel_name="python3")
        self.manager.start_kernel(cwd=str(folder), env=environment)
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=120)

    def close(self):
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)
        self.manager.cleanup_resources()

    def run(self, code, *, interrupted_at=None):
        """What a cell prints to either stream, and its error; None if it has none."""
        self.client.execute(code)
        printed, error = {"stdout": "", "stderr": ""}, None
        while True:
            message = self.client.get_iopub_msg(timeout=120)
            content = message["content"]
            if message["msg_type"] == "stream":
                printed[content["name"]] += content["text"]
            if message["msg_type"] == "error":
                error = content
            if interrupted_at and re.search(interrupted_at, printed["stdout"]):
                self.manager.interrupt_kernel()
                interrupted_at = None
            if message["msg_type"] == "status" and content["execution_state"] == "idle":
                return printed, error


@pytest.fixture
def kernel(tmp_path, environment):
    kernel = Kernel(tmp_path, environment)
    yield kernel
    kernel.close()


def test_an_interrupted_cell_goes_on_when_it_is_run_again(kernel):
    printed, error = kernel.run(TRAIN, interrupted_at=r"step \d+/")
    assert "SIGINT: stopping after this step, to save" in printed["stderr"]
    [said] = error["traceback"]
    assert (step := re.fullmatch(r"interrupted by SIGINT at step (\d+) of .*; the same command goes on", said)), said
    again, error = kernel.run(TRAIN, interrupted_at=r"step \d+/")
    assert f"step {step[1]}" in again["stdout"].partition("epoch 1")[0]
    assert int(re.search(r"epoch 1  step (\d+)/", again["stdout"])[1]) > int(step[1])
    _, error = kernel.run('config.train.epochs = 0\ntf_finetune.train(config, "run")')
    assert error["traceback"] == ["error: wrong value for train.epochs, expected 1 or more, got 0"]


def cell_functions(monkeypatch, tmp_path):
    """What the notebook's cells define, in a namespace that knows nothing but the standard library."""
    tree = ast.parse((NOTEBOOKS / "finetune_imdb.py").read_text(encoding="utf-8"))

    def is_wanted(node):
        if isinstance(node, ast.Import | ast.ImportFrom):
            name = node.names[0].name if isinstance(node, ast.Import) else node.module
            return name.split(".")[0] in sys.stdlib_module_names
        return isinstance(node, ast.FunctionDef) or (
            isinstance(node, ast.Assign) and ast.unparse(node.targets[0]).isupper()
        )

    tree.body = [node for node in tree.body if is_wanted(node)]
    monkeypatch.chdir(tmp_path)
    namespace = {}
    exec(compile(tree, "finetune_imdb.py", "exec"), namespace)
    return namespace


class TestInstall:
    @pytest.fixture
    def namespace(self, monkeypatch, tmp_path):
        namespace = cell_functions(monkeypatch, tmp_path)
        self.commands = []

        def run(command, check):
            self.commands.append(command)
            self.kept = Path(command[-2].removeprefix("--constraint=")).read_text().splitlines()

        namespace["subprocess"] = types.SimpleNamespace(run=run)
        return namespace

    def test_from_the_repository_and_nothing_that_is_there_is_replaced(self, namespace, tmp_path):
        namespace["REPOSITORY"] = "me/mine"
        namespace["install"]()
        [command] = self.commands
        assert command[1:4] == ["-m", "pip", "install"]
        assert command[-1] == "tf_finetune @ git+https://github.com/me/mine"
        kept = dict(line.split("==") for line in self.kept)
        assert kept["numpy"] == metadata.version("numpy")
        assert kept["tensorflow-text"] == metadata.version("tensorflow-text")

    def test_from_the_newest_wheel_beside_it(self, namespace, tmp_path):
        for version in ("0.1.0", "0.2.0"):
            (tmp_path / f"tf_finetune-{version}-py3-none-any.whl").touch()
        namespace["install"]()
        assert self.commands[0][-1] == "tf_finetune-0.2.0-py3-none-any.whl"

    def test_without_a_repository(self, namespace):
        namespace["REPOSITORY"] = "OWNER/tf_finetune"
        with pytest.raises(RuntimeError, match="put a wheel .* into "):
            namespace["install"]()
        assert not self.commands


@pytest.mark.parametrize(
    ("smi", "jax_on", "expected"), [(0, None, "GPU"), (9, "tpu", "TPU"), (9, "cpu", "CPU"), (9, None, "CPU")]
)
def test_the_accelerator(smi, jax_on, expected, monkeypatch, tmp_path):
    command = tmp_path / "nvidia-smi"
    command.write_text(f"#!/bin/sh\nexit {smi}\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    if jax_on:
        (tmp_path / "libtpu.py").touch()
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.setitem(sys.modules, "jax", types.SimpleNamespace(default_backend=lambda: jax_on))
    assert cell_functions(monkeypatch, tmp_path)["accelerator"]() == expected

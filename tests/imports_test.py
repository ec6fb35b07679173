"""The arrows between rooms, and which rooms must import without TensorFlow, read from the code itself."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import tf_finetune

PACKAGE = Path(tf_finetune.__file__).parent
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if "configs" not in path.parts)

# Room -> the rooms it may import from. A module at the top of the package is a room of its own.
GROUND = {"config", "errors", "json_files", "csv_files"}
ALLOWED = {
    "__init__": set(),
    "__main__": {"cli"},
    "config": set(),
    "errors": set(),
    "json_files": {"errors"},
    "csv_files": {"json_files"},
    "cli": GROUND | {"command_flags", "settings", "runtime", "devices", "process_environment", "processes", "commands"},
    "command_flags": GROUND | {"settings", "readers"},
    "settings": GROUND | {"readers"},
    "runtime": GROUND,
    "process_environment": GROUND,
    "processes": GROUND | {"runtime", "process_environment"},
    "tf_strategies": GROUND,
    "replicas": GROUND,
    "devices": GROUND | {"processes", "runtime", "tf_strategies"},
    "matrix_rate": GROUND | {"devices"},
    "surroundings": GROUND | {"devices"},
    "workdir": GROUND | {"runtime"},
    "packages": GROUND,
    "hub": GROUND,
    "pretrained": GROUND | {"packages", "hub"},
    "weights": GROUND,
    "native": GROUND | {"packages", "runtime", "devices"},
    "bert": GROUND | {"pretrained", "weights", "native", "replicas"},
    "text": GROUND,
    "readers": GROUND | {"packages", "hub", "runtime"},
    "checks": GROUND | {"readers"},
    "data": GROUND | {"packages", "runtime", "readers", "checks"},
    "training": GROUND | {"workdir", "replicas"},
    "evaluation": GROUND | {"runtime", "devices", "bert", "text", "data"},
    "serving": GROUND | {"workdir", "bert", "evaluation", "text"},
    "pages": GROUND | {"runtime"},
    "commands": GROUND
    | {
        "pages",
        "hub",
        "settings",
        "runtime",
        "devices",
        "matrix_rate",
        "surroundings",
        "replicas",
        "process_environment",
        "processes",
        "workdir",
        "pretrained",
        "native",
        "bert",
        "text",
        "readers",
        "checks",
        "data",
        "training",
        "evaluation",
        "serving",
    },
}


def room(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def imports(path, *, top_level_only=False):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if top_level_only else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            if node.module == "tf_finetune":
                yield from (f"tf_finetune.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_arrows_go_one_way(path):
    here = room("tf_finetune." + ".".join(path.relative_to(PACKAGE).with_suffix("").parts))
    ours = [name for name in imports(path) if name.startswith("tf_finetune.")]
    wrong = [name for name in ours if room(name) not in ALLOWED[here] | {here}]
    assert not wrong


def test_only_flags_settings_and_commands_see_the_whole_config():
    seeing = {
        room("tf_finetune." + ".".join(path.relative_to(PACKAGE).with_suffix("").parts))
        for path in MODULES
        if "ExperimentConfig" in path.read_text(encoding="utf-8")
    }
    assert seeing == {"__init__", "config", "command_flags", "settings", "commands"}


PURE = [path for path in MODULES if path.parent.name in ("bert", "training", "weights")] + [
    PACKAGE / "data" / "order.py"
]


@pytest.mark.parametrize("path", PURE, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_pure_rooms_import_no_tensorflow(path):
    tops = {name.split(".")[0] for name in imports(path, top_level_only=True)}
    assert not tops & {"tensorflow", "tensorflow_text"}


def test_importing_the_package_imports_nothing_heavy():
    code = "import sys, tf_finetune; print(sorted({'keras', 'numpy', 'absl', 'ml_collections'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_public_names_are_there():
    for name in tf_finetune.__all__:
        assert getattr(tf_finetune, name).__name__ == name
    assert set(tf_finetune.__all__) <= set(dir(tf_finetune))
    with pytest.raises(AttributeError, match="module 'tf_finetune' has no attribute 'nothing'"):
        tf_finetune.nothing  # noqa: B018

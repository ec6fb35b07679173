"""What must be the same at the end of a run, however often it was interrupted."""

import json
from pathlib import Path
from typing import Any

from tf_finetune.training import checkpoints


def records(workdir: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl but for what depends on the clock."""
    lines = (workdir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [{name: value for name, value in json.loads(line).items() if name != "timing"} for line in lines]


def outcome(workdir: Path) -> dict[str, Any]:
    """Metrics, best.json, and weights and training state of the last one and the best."""
    folders = checkpoints.all_of(workdir / "checkpoints")
    last, best = folders[-1], json.loads((workdir / "best.json").read_text(encoding="utf-8"))
    state = json.loads((last / "training_state.json").read_text(encoding="utf-8"))
    state.pop("metrics_bytes")  # of the clock's numbers, too
    names = {path.name for path in last.iterdir()} - {"training_state.json", "manifest.json"}
    return {
        "records": records(workdir),
        "best": best,
        "best_weights": (workdir / "checkpoints" / best["checkpoint"] / "model.safetensors").read_bytes(),
        "checkpoint": last.name,
        "state": state,
        **{name: (last / name).read_bytes() for name in names},
    }


def differences(found: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    """The names of what is not the same."""
    return [name for name in expected if found.get(name) != expected[name]]


def contents(folder: Path) -> dict[Path, bytes]:
    """Every file below a folder."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

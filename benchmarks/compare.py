"""Runs us and every peer on the same work, interleaved, one process at a time.

python benchmarks/compare.py [--rounds 5] [--peers ours pytorch_tuned ...] [--measurements reviews long ...] [--quick]

A round is every peer once. Results are kept in `.results/results.jsonl`, a line each: an interrupted run goes on where
it was, and `report.py` makes the tables of it. What failed is not tried again; without that file all begins anew.
`--quick` tries the road out in small and keeps its lines apart.
"""

import argparse
import dataclasses
import datetime
import json
import os
import platform
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import environments

HERE = Path(__file__).parent
RESULTS = HERE / ".results" / "results.jsonl"
QUICK_RESULTS = HERE / ".results" / "quick.jsonl"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Peer:
    """What is compared.

    Attributes:
        environment: the one it runs in.
        small_batch: trains 8 texts at a time, in float32, all padded to the cap: what tutorials show.
        keeps_memory: glibc's allocator is told to keep what was freed; PyTorch's steps are up to a third shorter then.
    """

    environment: str
    small_batch: bool
    keeps_memory: bool = False


PEERS = {
    "ours": Peer(environment="ours", small_batch=False),
    "trainer_tutorial": Peer(environment="pytorch", small_batch=True),
    "pytorch_tuned": Peer(environment="pytorch", small_batch=False, keeps_memory=True),
    "keras_hub_default": Peer(environment="keras_hub", small_batch=True),
    "keras_hub_tuned": Peer(environment="keras_hub", small_batch=False, keeps_memory=True),
    "old_tf_class": Peer(environment="old_tf_class", small_batch=True),
}
KEEP_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**40)}
# The rate of matrix products, by each library that brings its own: what steps are compared with.
RATES = {"rate_pytorch": "pytorch", "rate_tensorflow": "ours"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measurement:
    """One kind of job, for every peer.

    Attributes:
        corpus: of workload.py.
        checkpoint: the same.
        max_length: tokens a text at most; peers that pad all texts pad to it.
        settings: fields of the job, for all peers; they replace what each would do of its own (`settings_of`).
    """

    corpus: str
    checkpoint: str = "minilm"
    max_length: int = 512
    settings: dict[str, Any]


MEASUREMENTS = {
    "reviews": Measurement(corpus="reviews", settings={"measure": "speed", "seconds": 10, "epochs": 3}),
    "long": Measurement(corpus="long", settings={"measure": "speed", "seconds": 20, "epochs": 3}),
    # Every text fills the 128 tokens: one shape, the same arithmetic for all.
    "one_step": Measurement(
        corpus="full",
        max_length=128,
        settings={
            "measure": "speed",
            "seconds": 10,
            "evaluation_examples": 16,
            "epochs": 3,
            "batch_size": 16,
            "precision": "bfloat16",
        },
    ),
    "base": Measurement(
        corpus="long",
        checkpoint="base",
        settings={"measure": "speed", "seconds": 20, "epochs": 3, "unmeasured_steps": 1, "evaluation_examples": 16},
    ),
    # The longest review has 79 tokens: a cap of 96 changes no number, and spares those that pad to it nine tenths.
    "accuracy": Measurement(
        corpus="reviews", max_length=96, settings={"measure": "accuracy", "epochs": 3, "limit_s": 3000}
    ),
}
QUICK = {"seconds": 2, "evaluation_examples": 8, "limit_s": 60}


def settings_of(name: str, measurement: Measurement, *, round_number: int, quick: bool) -> dict[str, Any]:
    """The job of a peer, but for when it is spawned."""
    small = name in PEERS and PEERS[name].small_batch
    own = {
        "batch_size": 8 if small else 32,
        "precision": "float32" if small else "bfloat16",
        "learning_rate": 5e-5 if small else 1e-4,
        "evaluation_examples": 64 if small else 192,
    }
    if measurement.checkpoint == "base" and not small:
        own["batch_size"] = 16  # so that the time is enough for several
    if name == "ours" and measurement.corpus == "long":
        own["batch_tokens"] = own["batch_size"] * 256  # about as many texts a batch, and none that is larger
    data = HERE / ".data"
    return {
        "train": str(data / f"{measurement.corpus}_train.jsonl"),
        "validation": str(data / f"{measurement.corpus}_validation.jsonl"),
        "checkpoint": str(data / measurement.checkpoint),
        "max_length": measurement.max_length,
        "seed": round_number,
        **own,
        **measurement.settings,
        **(QUICK if quick else {}),
    }


def run(name: str, settings: dict[str, Any], *, limit_s: float) -> dict[str, Any]:
    """A peer's result, or `{"error": why there is none}`."""
    environment = RATES.get(name) or PEERS[name].environment
    script = HERE / "peers" / f"{'matrix_rate' if name in RATES else name}.py"
    variables = KEEP_MEMORY if name in PEERS and PEERS[name].keeps_memory else {}
    variables = variables | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "true", "TF_CPP_MIN_LOG_LEVEL": "3"}
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with tempfile.TemporaryDirectory() as folder:
        job = Path(folder) / "job.json"
        job.write_text(json.dumps({**settings, "spawned": time.time()}), encoding="utf-8")
        command = [str(environments.python_of(environment)), str(script), str(job)]
        try:
            done = subprocess.run(
                command, cwd=folder, env=inherited | variables, capture_output=True, text=True, timeout=limit_s
            )
        except subprocess.TimeoutExpired:
            return {"error": f"did not end within {limit_s:.0f} s"}
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode == 0 and lines:
        return json.loads(lines[-1])
    said = [line for line in done.stderr.splitlines() if line.strip()]
    return {"error": said[-1].strip() if said else f"ended with status {done.returncode}"}


def hardware() -> str:
    """The processor by its own name, its cores and memory, and GPUs where there are some."""
    cpuinfo, meminfo = Path("/proc/cpuinfo"), Path("/proc/meminfo")
    names = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
    flags = [flag for flag in ("avx512_bf16", "amx_bf16") if flag in cpuinfo.read_text()]
    memory = int(meminfo.read_text().split()[1]) / 2**20
    listed = subprocess.run("nvidia-smi -L || true", shell=True, capture_output=True, text=True).stdout
    gpus = [line.partition(" (UUID")[0] for line in listed.splitlines()]
    cores = len(os.sched_getaffinity(0))
    return ", ".join([f"{names[0]}, {cores} cores", *flags, f"{memory:.0f} GiB", *gpus])


def versions_of(environment: str) -> dict[str, str]:
    """The libraries whose versions matter, as installed."""
    listed = subprocess.run(
        [str(environments.python_of(environment)), "-m", "pip", "list", "--format=json"], capture_output=True, text=True
    )
    wanted = ("keras", "keras-hub", "tensorflow", "tf_keras", "tf-keras", "torch", "transformers", "accelerate")
    return {one["name"]: one["version"] for one in json.loads(listed.stdout) if one["name"] in wanted}


def stored(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def is_done(lines: list[dict[str, Any]], measurement: str, name: str, round_number: int) -> bool:
    """Whether there is nothing more to learn: it ran, or it failed, as it would again."""
    of_peer = [line for line in lines if (line["measurement"], line["peer"]) == (measurement, name)]
    return any("error" in line["result"] or line["round"] == round_number for line in of_peer)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--measurements", nargs="+", choices=MEASUREMENTS, default=list(MEASUREMENTS))
    parser.add_argument("--quick", action="store_true", help="one small round, to see that all of it runs")
    chosen = parser.parse_args()
    import workload  # needs this project installed, which --help does not

    workload.prepare()
    path = QUICK_RESULTS if chosen.quick else RESULTS
    path.parent.mkdir(exist_ok=True)
    QUICK_RESULTS.unlink(missing_ok=True)
    needed = dict.fromkeys(PEERS[name].environment for name in chosen.peers)
    missing = {name: why for name in needed if (why := environments.made(name))}
    machine = hardware()
    versions = {name: versions_of(name) for name in needed if name not in missing}
    for round_number in range(1 if chosen.quick else chosen.rounds):
        for title in chosen.measurements:
            measurement = MEASUREMENTS[title]
            rates = [name for name, place in RATES.items() if title == "one_step" and place in versions]
            for name in [*chosen.peers, *rates]:
                if is_done(stored(path), title, name, round_number):
                    continue
                environment = RATES.get(name) or PEERS[name].environment
                settings = settings_of(name, measurement, round_number=round_number, quick=chosen.quick)
                began = time.time()
                result = {"error": missing.get(environment)}
                if environment not in missing:
                    result = run(name, settings, limit_s=settings.get("limit_s", 0) + 1800)
                line = {
                    "measurement": title,
                    "peer": name,
                    "round": round_number,
                    "date": datetime.date.today().isoformat(),
                    "hardware": machine,
                    "python": platform.python_version(),
                    "versions": versions.get(environment, {}),
                    "took_s": round(time.time() - began, 1),
                    "job": settings,
                    "result": result,
                }
                with path.open("a", encoding="utf-8") as lines:
                    lines.write(json.dumps(line) + "\n")
                print(
                    f"round {round_number + 1}  {title:<10}{name:<20}{line['took_s']:>7} s  {brief(result)}", flush=True
                )


def brief(result: dict[str, Any]) -> str:
    """What one looks at while it runs."""
    shown = ("error", "examples_per_second", "step_ms", "first_step_s", "validation_accuracy")
    values = {name: result[name] for name in shown if result.get(name) is not None}
    return "  ".join(f"{name} {v:.4g}" if isinstance(v, float) else f"{name} {v}" for name, v in values.items())


if __name__ == "__main__":
    main()

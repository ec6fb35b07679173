"""From raw text to probabilities: our SavedModel, our int8 form and every peer, interleaved, on the same texts.

python benchmarks/serving.py [--rounds 5] [--peers ours pytorch ...]

All processes stay loaded and take turns, one at work at a time; a round is every peer once on every case. Texts are
real reviews, joined and cut to lengths. Then the time from the start of a process to its first answer. Prints a table
with ratios to ours, and the largest difference of a probability from PyTorch's.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import environments
import numpy as np
import workload
from corpora import joined_to

HERE = Path(__file__).parent
FORMS = workload.DATA / "serving"
THREADS = 2
# Name: (environment, script, what its job has beside). "variables" are of the process.
PEERS = {
    "ours": ("ours", "serving_ours", {}),
    # By default only on processors with AVX-512 VNNI and the like.
    "ours_onednn": ("ours", "serving_ours", {"variables": {"TF_ENABLE_ONEDNN_OPTS": "1"}}),
    "ours_int8": ("litert", "serving_litert", {"model": "litert/1/model.tflite"}),
    "onnxruntime": ("onnxruntime", "serving_onnxruntime", {"model": "onnx/1/model.onnx"}),
    "onnxruntime_int8": ("onnxruntime", "serving_onnxruntime", {"model": "onnx/1/model_int8.onnx"}),
    "pytorch": ("pytorch", "serving_pytorch", {"compiled": False}),
    "pytorch_compiled": ("pytorch", "serving_pytorch", {"compiled": True}),
    "keras_hub": ("keras_hub", "serving_keras_hub", {}),
    "old_tf_class": ("old_tf_class", "serving_old_tf_class", {}),
}
# Name: (tokens of each text, [CLS] and [SEP] included; answers a turn).
CASES = {
    "1 x 25": ([25], 20),
    "1 x 128": ([128], 8),
    "32 x 25": ([25] * 32, 2),
    "32 mixed": (np.random.default_rng(0).permutation(np.linspace(20, 420, 32).astype(int)).tolist(), 1),
}


def prepare() -> dict[str, list[str]]:
    """Makes the checkpoint where it is not there yet, and its forms anew; returns the texts of each case."""
    workload.prepare()
    from tf_finetune.config import Truncation
    from tf_finetune.text.tokenizer import Tokenizer

    write_forms()
    tokenizer = Tokenizer(workload.DATA / "minilm")
    texts = [text for text, _ in workload.reviews()["validation"]]
    ids = tokenizer.encode(texts, max_length=512, truncation=Truncation.HEAD)
    pieces = np.array([len(one) - 2 for one in ids])
    made = {}
    for name, (lengths, _) in CASES.items():
        joined = joined_to(np.array(lengths), texts, pieces, seed=0)
        made[name] = [cut(text, length, tokenizer) for text, length in zip(joined, lengths, strict=True)]
    return made


def cut(text: str, length: int, tokenizer) -> str:
    """The text without the last words, so that it has so many tokens at most."""
    from tf_finetune.config import Truncation

    words = text.split()
    while len(tokenizer.encode([" ".join(words)], max_length=10_000, truncation=Truncation.HEAD)[0]) > length:
        words.pop()
    return " ".join(words)


def write_forms() -> None:
    from tf_finetune.config import Truncation
    from tf_finetune.evaluation.classifier import Classifier
    from tf_finetune.serving.export import save_model
    from tf_finetune.serving.litert import save_litert
    from tf_finetune.serving.onnx_files import save_onnx

    classifier = Classifier.from_checkpoint(workload.DATA / "minilm", max_length=512, truncation=Truncation.HEAD)
    shutil.rmtree(FORMS, ignore_errors=True)
    for form in ("export", "litert", "onnx"):
        (FORMS / form / "1").mkdir(parents=True)
    save_model(classifier, FORMS / "export" / "1")
    save_litert(classifier.model, FORMS / "litert" / "1" / "model.tflite")
    save_onnx(classifier.model, FORMS / "onnx" / "1")


def tensors_of_ours() -> tuple[str, str]:
    from tf_finetune.serving.session import signature_tensors

    signature = signature_tensors(FORMS / "export" / "1")["serving_default"]
    return signature.inputs["text"].name, signature.outputs["probabilities"].name


class Peer:
    """A process that is loaded and waits for texts."""

    def __init__(self, name: str, tensors: tuple[str, str]):
        environment, script, options = PEERS[name]
        job = {"checkpoint": str(workload.DATA / "minilm"), "threads": THREADS, "tensors": tensors, **options}
        job["saved_model"] = str(FORMS / "export" / "1")
        if "model" in options:
            job["model"] = str(FORMS / options["model"])
        command = [environments.python_of(environment), HERE / "peers" / f"{script}.py", json.dumps(job)]
        self.process = subprocess.Popen(
            list(map(str, command)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | options.get("variables", {}),
        )

    def ask(self, texts: list[str], repeats: int) -> dict:
        print(json.dumps({"texts": texts, "repeats": repeats}), file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.process.args[1]} ended with status {self.process.wait()}")
        return json.loads(line)

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def first_answer(name: str, tensors: tuple[str, str], texts: list[str]) -> float:
    """Seconds from the start of a new process to its first answer."""
    began = time.perf_counter()
    peer = Peer(name, tensors)
    peer.ask(texts, 1)
    seconds = time.perf_counter() - began
    peer.close()
    return seconds


def measure(names: list[str], texts: dict[str, list[str]], rounds: int) -> dict[str, dict[str, list[float]]]:
    """Seconds by case and peer, and under "start" those to the first answer."""
    tensors = tensors_of_ours()
    peers = {name: Peer(name, tensors) for name in names}
    seconds = {case: {name: [] for name in names} for case in ("start", *CASES)}
    answers = {
        case: {name: peer.ask(texts[case], 2)["probabilities"] for name, peer in peers.items()} for case in CASES
    }
    for number in range(rounds):
        for case, (_, repeats) in CASES.items():
            for name, peer in peers.items():
                time.sleep(0.3)  # threads of the one before stop spinning
                seconds[case][name].append(statistics.median(peer.ask(texts[case], repeats)["seconds"]))
        print(f"round {number + 1} of {rounds}", file=sys.stderr)
    for peer in peers.values():
        peer.close()
    for _ in range(rounds):
        for name in names:
            seconds["start"][name].append(first_answer(name, tensors, texts["1 x 25"]))
    print_differences(answers)
    return seconds


def print_differences(answers: dict[str, dict[str, list]]) -> None:
    reference = "pytorch" if "pytorch" in next(iter(answers.values())) else next(iter(next(iter(answers.values()))))
    for name in next(iter(answers.values())):
        largest = max(np.abs(np.array(by[name]) - np.array(by[reference])).max() for by in answers.values())
        print(f"{name}: probabilities at most {largest:.1e} from {reference}'s")


def print_table(seconds: dict[str, dict[str, list[float]]]) -> None:
    """Medians in ms, and in brackets the median ratio to ours within a round."""
    print("| | " + " | ".join(seconds) + " |\n|" + "---|" * (len(seconds) + 1))
    for name in next(iter(seconds.values())):
        cells = []
        for by_peer in seconds.values():
            ratios = [theirs / ours for theirs, ours in zip(by_peer[name], by_peer["ours"], strict=True)]
            cells.append(f"{1000 * statistics.median(by_peer[name]):,.1f} ({statistics.median(ratios):.2f})")
        print(f"| {name} | " + " | ".join(cells) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    options = parser.parse_args()
    names = ["ours", *(name for name in options.peers if name != "ours")]
    texts = prepare()
    for environment in dict.fromkeys(PEERS[name][0] for name in list(names)):
        if reason := environments.made(environment):
            print(f"{environment}: {reason}")
            names = [name for name in names if PEERS[name][0] != environment]
    if "ours" not in names:
        sys.exit("there is nothing to compare with")
    print_table(measure(names, texts, options.rounds))


if __name__ == "__main__":
    main()

"""Reading and tokenising a csv of a million rows: how fast, in how much memory, and how soon a second run begins.

python benchmarks/million_rows.py [ROWS ...]

The rows are synthetic: texts of 5 to 45 words drawn from the words of the packaged reviews, labels drawn too. Each
size is loaded, split 80/10/10 and tokenised twice, by a process of its own each time, with an empty cache at first.
Prints rows a second, the peak of all resident memory (memory-mapped files count while they are cached) and of
anonymous memory alone (what the process really needs), sampled every 10 ms from /proc/self/status.
"""

import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

SIZES = (100_000, 300_000, 1_000_000)
GATHERED = 1000  # batches
BATCH = 32


def write_csv(path: Path, rows: int) -> None:
    from tf_finetune.readers.reviews import packaged_reviews
    from tf_finetune.readers.rows import refuse

    drawn = random.Random(0)
    words = [word for row in packaged_reviews()(refuse) for word in row.text.replace('"', "").replace(",", "").split()]
    with path.open("w", encoding="utf-8") as file:
        file.write("text,label\n")
        for _ in range(rows):
            text = " ".join(drawn.choices(words, k=drawn.randint(5, 45)))
            file.write(f"{text},{drawn.choice(('negative', 'positive'))}\n")


class Memory(threading.Thread):
    """Samples this process's memory, in MiB."""

    def __init__(self):
        super().__init__(daemon=True)
        self.peak = {"VmRSS": 0, "RssAnon": 0}

    def run(self) -> None:
        while True:
            self.sample()
            time.sleep(0.01)

    def sample(self) -> dict[str, int]:
        lines = Path("/proc/self/status").read_text().splitlines()
        now = {line.split(":")[0]: int(line.split()[1]) // 1024 for line in lines if line.startswith(tuple(self.peak))}
        self.peak = {name: max(peak, now[name]) for name, peak in self.peak.items()}
        return now


def measure(source: str) -> dict[str, float]:
    """One run as far as its first batch; TensorFlow, which takes the same time and memory always, is left out."""
    import numpy as np

    from tf_finetune.config import ModelConfig, Truncation
    from tf_finetune.data import sources, tokenized
    from tf_finetune.pretrained import local_checkpoint
    from tf_finetune.text.tokenizer import Tokenizer

    tokenizer = Tokenizer(local_checkpoint(ModelConfig().checkpoint))
    memory = Memory()
    memory.start()
    before = memory.sample()["RssAnon"]
    began = time.perf_counter()
    splits = sources.load(source)
    loaded = time.perf_counter()

    def encode(texts, text_pairs):
        return tokenizer.encode(texts, max_length=128, truncation=Truncation.HEAD), None

    tokens = {name: tokenized.tokenized(part, encode, key="million rows") for name, part in splits.examples.items()}
    ready = time.perf_counter()
    draws = np.random.default_rng(0).integers(len(tokens["train"]), size=(GATHERED, BATCH))
    for draw in draws:
        tokens["train"].gather(draw)
    gathered = time.perf_counter() - ready
    memory.sample()
    return {
        "rows": sum(len(part) for part in tokens.values()),
        "tokens": float(sum(int(part.lengths.sum()) for part in tokens.values())),
        "load_s": loaded - began,
        "tokenise_s": ready - loaded,
        "gather_us": 1e6 * gathered / draws.size,
        "rss": memory.peak["VmRSS"],
        "anon_before": before,
        "anon": memory.peak["RssAnon"],
    }


def run(source: Path, cache: Path) -> dict[str, float]:
    command = [sys.executable, __file__, "--measure", str(source)]
    environment = os.environ | {"TF_FINETUNE_CACHE": str(cache)}
    result = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(result.stdout.splitlines()[-1])


def main(sizes: list[int]) -> None:
    from tf_finetune import packages

    print("synthetic rows; MiB resident (rss) and anonymous (anon, from the imports to the peak)")
    for rows in sizes:
        with tempfile.TemporaryDirectory() as folder:
            source, cache = Path(folder) / "rows.csv", Path(folder) / "cache"
            cache.mkdir()
            write_csv(source, rows)
            (cache / "packages").symlink_to(packages.cache_folder() / "packages")
            (cache / "checkpoints").symlink_to(packages.cache_folder() / "checkpoints")
            first, second = run(source, cache), run(source, cache)
            kept = sum(path.stat().st_size for path in (cache / "data").rglob("*") if path.is_file())
            print(
                f"{rows:>9,} rows, {source.stat().st_size / 2**20:.0f} MiB of csv, {kept / 2**20:.0f} MiB kept: "
                f"read {rows / first['load_s']:,.0f} rows/s, tokenise {rows / first['tokenise_s']:,.0f} rows/s "
                f"({first['tokens'] / rows:.0f} tokens a row)"
            )
            for name, one in (("first", first), ("second", second)):
                print(
                    f"{name:>9} run: rss {one['rss']:.0f}, anon {one['anon_before']:.0f} to {one['anon']:.0f}; "
                    f"load {one['load_s']:.2f} s, tokens {one['tokenise_s']:.2f} s, "
                    f"gather {one['gather_us']:.2f} us an example",
                    flush=True,
                )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(measure(sys.argv[2])))
    else:
        main([int(argument) for argument in sys.argv[1:]] or list(SIZES))

"""Texts a second of the tokenizer in the graph against Hugging Face's `tokenizers`, interleaved in one process.

python benchmarks/tokenizer_speed.py [ROUNDS] [BATCH_SIZE]

The packaged movie reviews, 10,566 sentences, all cores for everyone: the one in the graph tokenizes batches in a
tf.data pipeline that works on as many at once as there are cores, as training input or concurrent requests to a server
do; `encode_batch` gets all texts in one call and spreads them over the cores by itself. `encode_batch_fast` is its
variant that leaves out the offsets. Prints the medians, and the ratios with their spread, of the time that passed and
of the processor time that all threads took, which other work on the machine disturbs less.
"""

import os
import statistics
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tensorflow as tf  # noqa: E402

from tf_finetune.config import ModelConfig, Truncation  # noqa: E402
from tf_finetune.pretrained import local_checkpoint  # noqa: E402
from tf_finetune.readers.reviews import packaged_reviews  # noqa: E402
from tf_finetune.readers.rows import refuse  # noqa: E402
from tf_finetune.text.in_graph import InGraphTokenizer  # noqa: E402
from tf_finetune.text.tokenizer import Tokenizer  # noqa: E402


def in_graph_run(tokenizer: Tokenizer, texts: list[str], batch_size: int):
    """A function that tokenizes all texts once."""
    in_graph = InGraphTokenizer(**tokenizer.in_graph_options(), max_length=128, truncation=Truncation.HEAD)
    strings = tf.constant(texts)
    starts = tf.data.Dataset.range(0, len(texts), batch_size)
    batches = starts.map(lambda start: in_graph(strings[start : start + batch_size]), num_parallel_calls=os.cpu_count())

    def run():
        for _ in batches:
            pass

    return run


def seconds(run) -> tuple[float, float]:
    """The time that passed, and the processor time of all threads."""
    began, processor_began = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - began, time.process_time() - processor_began


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    batch_size = int(sys.argv[2]) if len(sys.argv) > 2 else 512
    tokenizer = Tokenizer(local_checkpoint(ModelConfig().checkpoint))
    texts = [text for text, *_ in packaged_reviews()(refuse)]
    runs = {
        "in the graph": in_graph_run(tokenizer, texts, batch_size),
        "encode_batch": lambda: tokenizer.fast.encode_batch(texts),
        "encode_batch_fast": lambda: tokenizer.fast.encode_batch_fast(texts),
    }
    for run in runs.values():
        run()  # traces, and starts the threads
    times = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            times[name].append(seconds(run))
    for name, values in times.items():
        print(f"{name:<18} median {len(texts) / statistics.median(passed for passed, _ in values):>8,.0f} texts/s")
    for name in ("encode_batch", "encode_batch_fast"):
        for index, kind in enumerate(("time", "processor time")):
            pairs = zip(times[name], times["in the graph"], strict=True)
            ratios = [other[index] / own[index] for other, own in pairs]
            spread = f"from {min(ratios):.2f} to {max(ratios):.2f}"
            print(f"{name:<18} takes {statistics.median(ratios):.2f} times the {kind} ({spread})")


if __name__ == "__main__":
    main()

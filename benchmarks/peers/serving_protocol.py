"""What every peer of benchmarks/serving.py does: load once, then answer lines of texts and say how long each took."""

import json
import sys
import time
from collections.abc import Callable
from typing import Any

MOST_TOKENS = 512


def serve(load: Callable[[dict[str, Any]], Callable[[list[str]], Any]]) -> None:
    """Reads the job from the command line, then a line of `{"texts": [...], "repeats": n}` at a time from standard
    input; answers each with `{"seconds": [...], "probabilities": [[...], ...]}`.

    Args:
        load: given the job, returns the function from raw texts to probabilities (texts, 2).
    """
    answer = load(json.loads(sys.argv[1]))
    for line in sys.stdin:
        asked = json.loads(line)
        seconds = []
        for _ in range(asked["repeats"]):
            began = time.perf_counter()
            probabilities = answer(asked["texts"])
            seconds.append(time.perf_counter() - began)
        print(json.dumps({"seconds": seconds, "probabilities": [list(map(float, row)) for row in probabilities]}))
        sys.stdout.flush()


def tokenizer_of(checkpoint: str):
    """Texts -> int32 input_ids, attention_mask and token_type_ids, padded to the longest, by Hugging Face's library."""
    import numpy as np
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(f"{checkpoint}/tokenizer.json")
    tokenizer.enable_truncation(MOST_TOKENS)
    tokenizer.enable_padding()

    def encode(texts: list[str]) -> dict[str, np.ndarray]:
        encoded = tokenizer.encode_batch(texts)
        columns = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
        return {name: np.array([getattr(one, of) for one in encoded], np.int32) for name, of in columns.items()}

    return encode


def softmax(logits):
    import numpy as np

    exponents = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponents / exponents.sum(axis=-1, keepdims=True)

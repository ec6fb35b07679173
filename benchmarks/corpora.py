"""The texts that benchmarks run on: the packaged reviews, and the same joined to reviews as long as IMDB's."""

import numpy as np

# Share of IMDB's reviews with at most so many wordpieces, as published: median 220, 88% over 128, 41% over 256, 13%
# over 512, longest 3,045. Between these points the logarithm of the length is taken as linear.
SHARES = (0.0, 0.12, 0.5, 0.59, 0.87, 0.97, 1.0)
LENGTHS = (11, 128, 220, 256, 512, 900, 3045)


def imdb_lengths(size: int, *, seed: int = 0) -> np.ndarray:
    """Wordpieces of `size` reviews, drawn from IMDB's distribution: int64 [size]."""
    drawn = np.random.default_rng(seed).random(size)
    return np.exp(np.interp(drawn, SHARES, np.log(LENGTHS))).astype(np.int64)


def joined_to(target_lengths: np.ndarray, texts: list[str], lengths: np.ndarray, *, seed: int = 0) -> list[str]:
    """Texts of about the target lengths, each made of whole texts drawn from those given.

    Args:
        target_lengths: int [size], wordpieces; a text stops at the first sentence that reaches it.
        texts: what is drawn from; all of one label, for the joined text to have it too.
        lengths: int [number of texts], wordpieces of each, special tokens left out.
        seed: of the draw.
    """
    random, joined = np.random.default_rng(seed), []
    for target in target_lengths:
        parts, length = [], 0
        while length < target:
            index = random.integers(len(texts))
            parts.append(texts[index])
            length += lengths[index]
        joined.append(" ".join(parts))
    return joined

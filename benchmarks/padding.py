"""How many tokens are computed for each that says something, and how random the order stays.

python benchmarks/padding.py

Token counts of the packaged reviews, and of reviews as long as IMDB's, cut at 512 tokens. For each way to make batches
it prints tokens computed a useful token; the rank correlation of a text's length and its place in the epoch; and the
share of pairs of texts in one batch that are in one batch again in the next epoch.
"""

import numpy as np
from corpora import imdb_lengths
from scipy import stats

from tf_finetune import pretrained
from tf_finetune.config import ModelConfig, Truncation
from tf_finetune.data.order import PADDING, BatchOrder, shape_set, training_order
from tf_finetune.readers.reviews import packaged_reviews
from tf_finetune.readers.rows import refuse
from tf_finetune.text.tokenizer import Tokenizer

MAX_LENGTH = 512
EPOCHS = 5


def main() -> None:
    tokenizer = Tokenizer(pretrained.local_checkpoint(ModelConfig().checkpoint))
    texts = [row.text for row in packaged_reviews()(refuse)]
    ids = tokenizer.encode(texts, max_length=MAX_LENGTH, truncation=Truncation.HEAD)
    corpora = {
        "packaged reviews": np.array([len(one) for one in ids]),
        "as long as IMDB's": np.minimum(imdb_lengths(25_000), MAX_LENGTH),
    }
    for name, lengths in corpora.items():
        print(f"{name}: {len(lengths)} texts, mean {lengths.mean():.0f} tokens")
        print(f"  {'batches':<34}{'computed/useful':>16}{'rank correlation':>18}{'together again':>16}")
        for batch_size in (8, 16, 32, 64):
            report(f"{batch_size} texts", lengths, batch_size=batch_size)
        for batch_tokens in (1024, 4096):
            report(f"{batch_tokens} tokens", lengths, batch_size=1, batch_tokens=batch_tokens)
        report(
            "32 texts in 8 shapes", lengths, batch_size=32, shapes=shape_set(lengths, num_shapes=8, longest=MAX_LENGTH)
        )
        widest = 32 * np.ceil(len(lengths) / 32) * MAX_LENGTH
        print(f"  {'32 texts, all padded to 512':<34}{widest / lengths.sum():>16.3f}")
        print(f"  {'32 texts in random order':<34}{random_order(lengths, 32).tokens / lengths.sum():>16.3f}")


def report(name: str, lengths: np.ndarray, **options) -> None:
    orders = [training_order(lengths, seed=0, epoch=epoch, **options) for epoch in range(EPOCHS)]
    padding = np.median([order.tokens for order in orders]) / lengths.sum()
    correlations = [correlation(order, lengths) for order in orders]
    print(f"  {name:<34}{padding:>16.3f}{np.mean(correlations):>18.3f}{together_again(*orders[:2]):>16.2%}")


def correlation(order: BatchOrder, lengths: np.ndarray) -> float:
    """Spearman's, of a text's length and its place in the epoch."""
    examples = order.examples[order.examples != PADDING]
    return float(stats.spearmanr(lengths[examples], np.arange(len(examples))).statistic)


def together_again(first: BatchOrder, second: BatchOrder) -> float:
    """Of the texts that share a batch with the one before them, the share that does so in another epoch too."""
    batch_of = [np.empty(max(order.examples) + 1, np.int64) for order in (first, second)]
    for order, batches in zip((first, second), batch_of, strict=True):
        numbers = np.repeat(np.arange(len(order)), np.diff(order.starts))
        batches[order.examples[order.examples != PADDING]] = numbers[order.examples != PADDING]
    examples = first.examples[first.examples != PADDING]
    pairs = np.stack([examples[:-1], examples[1:]])
    same = [batches[pairs[0]] == batches[pairs[1]] for batches in batch_of]
    return float((same[0] & same[1]).sum() / same[0].sum())


def random_order(lengths: np.ndarray, batch_size: int) -> BatchOrder:
    shuffled = np.random.default_rng(0).permutation(len(lengths))
    starts = np.append(np.arange(0, len(lengths), batch_size), len(lengths))
    return BatchOrder(shuffled, starts, np.maximum.reduceat(lengths[shuffled], starts[:-1]))


if __name__ == "__main__":
    main()

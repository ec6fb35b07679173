"""How far a number measured on a few examples may be from the truth: intervals that hold it 95 times of 100, and
chances of several tests together."""

from collections.abc import Callable, Sequence

import numpy as np

RESAMPLES = 1000
# Numbers drawn at once, 16 MB.
MOST_DRAWN = 2_000_000


def of_share(count: int, total: int) -> list[float]:
    """Wilson's interval of a share count / total; total is 1 or more."""
    from scipy import stats

    interval = stats.binomtest(count, total).proportion_ci(method="wilson")
    return [float(interval.low), float(interval.high)]


def by_bootstrap(samples: Sequence[np.ndarray], statistic: Callable[..., np.ndarray], *, seed: int = 0) -> list[float]:
    """The percentile bootstrap interval of a statistic of one or more samples, each drawn again by itself.

    Args:
        samples: float (n,) each, independent values, n of 2 or more.
        statistic: of as many arrays, along an `axis` that it is told.
        seed: of what is drawn.
    """
    from scipy import stats

    interval = stats.bootstrap(
        tuple(samples),
        statistic,
        n_resamples=RESAMPLES,
        batch=max(1, MOST_DRAWN // sum(map(len, samples))),
        method="percentile",  # the default one does not exist where all values are the same
        random_state=np.random.default_rng(seed),
    ).confidence_interval
    return [float(interval.low), float(interval.high)]


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted for their number (Holm 1979): below a level, any of them is so by chance that often at most."""
    order = np.argsort(p_values)
    remaining = len(p_values) - np.arange(len(p_values))
    adjusted = np.minimum(np.maximum.accumulate(np.asarray(p_values)[order] * remaining), 1)
    return adjusted[np.argsort(order)].tolist()

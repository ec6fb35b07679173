"""How far a property of texts (length, predicted class ...) has moved between two samples, and whether by chance."""

import collections
import dataclasses
import enum
from collections.abc import Sequence

import numpy as np

# Ten bins of ten texts. With 100 on either side a true PSI of 0.4 is found in three of five cases and 0.25 in one of
# five; with 200, 0.25 in four of five.
FEWEST_TEXTS = 100
# The usual reading of the PSI (Siddiqi, Credit Risk Scorecards, 2006).
MODERATE, MAJOR = 0.1, 0.25
# How often all properties together may be said to have drifted where none has.
SIGNIFICANCE = 0.01
# What an interval is to cover.
CONFIDENCE = 0.95
BINS = 10
# A class with fewer texts in the reference is pooled with others such (Cochran's rule for chi-squared).
FEWEST_OF_A_CLASS = 5
# Added to each count, so that a bin with no text at all has a share to divide by (Jeffreys' prior).
UNSEEN = 0.5
POOLED = "all others"
PERMUTATIONS, RESAMPLES = 9999, 2000


class Verdict(enum.Enum):
    """By the PSI, where it is more than chance."""

    STABLE = "stable"
    MODERATE = "moderate"
    MAJOR = "major"


@dataclasses.dataclass(frozen=True)
class Divergence:
    """How two samples of a property differ.

    PSI and Jensen-Shannon divergence are less their bias: measured on samples, either is above 0 where nothing has
    drifted, the PSI by about (bins - 1) (1 / n + 1 / m).

    Attributes:
        bins: what each is, in words; of classes their names.
        reference: texts in each bin.
        new: texts in each bin.
        psi: population stability index, at least 0.
        psi_interval: that covers CONFIDENCE of the time.
        js: Jensen-Shannon divergence in bits, 0 to 1.
        js_interval: that covers CONFIDENCE of the time.
        p_value: how often samples of these sizes from one population differ as much, by their PSI.
        psi_of_chance: what one in a hundred of those exceeds; a smaller drift is not told from chance.
    """

    bins: tuple[str, ...]
    reference: tuple[int, ...]
    new: tuple[int, ...]
    psi: float
    psi_interval: tuple[float, float]
    js: float
    js_interval: tuple[float, float]
    p_value: float
    psi_of_chance: float


def compare_numbers(reference: np.ndarray, new: np.ndarray, *, seed: int) -> Divergence:
    """Of numbers, in BINS bins that hold equal parts of the reference.

    Where many numbers are the same there are fewer bins; none is empty in the reference, but where all its numbers
    are one: then the bins are that number, and any other.

    Args:
        reference: finite (n,), of the texts a model was measured on; n of 1 or more.
        new: finite (m,), of the new ones; m of 1 or more.
        seed: for what is drawn.
    """
    edges = _edges(reference)
    if len(edges) == 0:
        same = [f"{reference[0]:g}", "other"]
        counted = [np.bincount(sample != reference[0], minlength=2) for sample in (reference, new)]
        return compare_counts(*counted, same, seed=seed)
    ends = [f"{edge:.4g}" for edge in edges]
    names = [f"up to {ends[0]}", *(f"up to {end}" for end in ends[1:]), f"above {ends[-1]}"]
    counted = [np.bincount(np.searchsorted(edges, sample), minlength=len(names)) for sample in (reference, new)]
    return compare_counts(*counted, names, seed=seed)


def _edges(reference: np.ndarray) -> np.ndarray:
    """The largest number of each bin but the last, each a number of the reference."""
    quantiles = np.quantile(reference, np.arange(1, BINS) / BINS, method="inverted_cdf")
    edges = np.unique(quantiles)
    return edges[edges < reference.max()]


def compare_classes(reference: Sequence[str], new: Sequence[str], *, seed: int) -> Divergence:
    """Of classes, a bin each; those with fewer than FEWEST_OF_A_CLASS texts in the reference, or none, share one.

    Args:
        reference: a name for each text that a model was measured on; one or more.
        new: a name for each new text; one or more.
        seed: for what is drawn.
    """
    counts = [collections.Counter(sample) for sample in (reference, new)]
    kept = sorted(name for name, count in counts[0].items() if count >= FEWEST_OF_A_CLASS)
    others = [of.total() - sum(of[name] for name in kept) for of in counts]
    counted = [[*(of[name] for name in kept), other] for of, other in zip(counts, others, strict=True)]
    return compare_counts(*counted, [*kept, POOLED], seed=seed)


def compare_counts(reference: Sequence[int], new: Sequence[int], bins: Sequence[str], *, seed: int) -> Divergence:
    """Of texts counted by bin.

    The intervals are bootstrap percentiles, their bias taken off. A resampled sample's counts are a multinomial draw.
    The p-value is that of a permutation test: texts that change sides at random have counts of a multivariate
    hypergeometric distribution. It is approximate where the bins were chosen by the reference.

    Args:
        reference: texts in each bin.
        new: texts in each bin.
        bins: what each is, in words.
        seed: for what is drawn.
    """
    used = np.asarray(reference) + np.asarray(new) > 0  # a bin without a text on either side says nothing
    reference, new = np.asarray(reference, np.int64)[used], np.asarray(new, np.int64)[used]
    random = np.random.default_rng(seed)
    measured, by_chance = psi(reference, new), _psi_of_permutations(reference, new, random)
    drawn = [random.multinomial(side.sum(), side / side.sum(), size=RESAMPLES) for side in (reference, new)]
    psi_now, psi_interval = _without_bias(measured, psi(*drawn))
    js_now, js_interval = _without_bias(jensen_shannon(reference, new), jensen_shannon(*drawn))
    rounding = 1e-9
    return Divergence(
        bins=tuple(name for name, is_used in zip(bins, used, strict=True) if is_used),
        reference=tuple(reference.tolist()),
        new=tuple(new.tolist()),
        psi=psi_now,
        psi_interval=psi_interval,
        js=js_now,
        js_interval=js_interval,
        p_value=float((1 + np.count_nonzero(by_chance >= measured - rounding)) / (1 + PERMUTATIONS)),
        psi_of_chance=float(np.quantile(by_chance, 1 - SIGNIFICANCE) - by_chance.mean()),
    )


def _psi_of_permutations(reference: np.ndarray, new: np.ndarray, random: np.random.Generator) -> np.ndarray:
    together = reference + new
    sides = random.multivariate_hypergeometric(together, reference.sum(), size=PERMUTATIONS, method="marginals")
    return psi(sides, together - sides)


def _without_bias(measured: np.ndarray, resampled: np.ndarray) -> tuple[float, tuple[float, float]]:
    """A divergence less its bias, which resampling shows by adding as much again; and its interval. None is below 0.

    Resampled divergences have the bias twice. Shifted by that, their percentiles cover what they should; mirrored at
    the measured one, as in the basic bootstrap, they miss too often on the upper side, because of their skew.
    """
    bias = resampled.mean() - measured
    tail = (1 - CONFIDENCE) / 2
    ends = np.quantile(resampled, [tail, 1 - tail]) - 2 * bias
    now, low, high = np.maximum([measured - bias, *ends], 0).tolist()
    return now, (low, high)


def psi(reference: np.ndarray, new: np.ndarray) -> np.ndarray:
    """The population stability index, sum of (p - q) ln(p / q), of the shares p and q.

    Credit scoring's name (Siddiqi 2006) for Jeffreys' divergence (1946); Yurdakul and Naranjo, "Statistical properties
    of the population stability index" (2020), give its distribution where nothing has drifted.

    Args:
        reference: int (..., bins), texts in each; UNSEEN is added to each.
        new: int (..., bins), likewise.

    Returns:
        float (...), 0 or more.
    """
    p, q = ((counts + UNSEEN) / (counts + UNSEEN).sum(axis=-1, keepdims=True) for counts in (reference, new))
    return ((p - q) * np.log(p / q)).sum(axis=-1)


def jensen_shannon(reference: np.ndarray, new: np.ndarray) -> np.ndarray:
    """The Jensen-Shannon divergence in bits (Lin 1991), the square of SciPy's distance.

    Args:
        reference: int (..., bins), texts in each.
        new: int (..., bins), likewise.

    Returns:
        float (...), 0 where the shares are the same to 1 where no bin has texts of both.
    """
    from scipy.spatial import distance

    return np.square(distance.jensenshannon(reference, new, base=2, axis=-1))


def verdict(divergence: Divergence, p_adjusted: float) -> Verdict:
    """What the PSI says where it is more than chance: a fixed limit alone would call every small sample drifted.

    Args:
        divergence: of a property.
        p_adjusted: its p-value among those of all properties, by `intervals.holm`.
    """
    if p_adjusted >= SIGNIFICANCE or divergence.psi < MODERATE:
        return Verdict.STABLE
    return Verdict.MODERATE if divergence.psi < MAJOR else Verdict.MAJOR


def worst(of: Sequence[Verdict]) -> Verdict:
    """The one that says most."""
    return max(of, key=list(Verdict).index)

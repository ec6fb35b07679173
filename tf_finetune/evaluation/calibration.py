"""Temperature scaling (Guo et al. 2017, https://arxiv.org/abs/1706.04599): probabilities that mean what they say."""

import numpy as np

from tf_finetune.config import ProblemType

# A model's logits are hardly ever ten times too large; a temperature at either end says that they mean nothing.
LOWEST, HIGHEST = 0.1, 10.0


def fit_temperature(logits: np.ndarray, labels: np.ndarray, problem_type: ProblemType) -> float:
    """The number by which to divide logits so that the cross-entropy of held-out examples is least.

    No label changes by it: what was most probable stays so, and a probability of 0.5 stays one.

    The labels are smoothed by one more example, of which nothing is known (after Platt 1999): where a few examples are
    all answered right, the cross-entropy alone would ask for probabilities of 1.

    Args:
        logits: float (n, num_labels), finite, of examples that were not trained on; n of 1 or more.
        labels: int (n,), or (n, num_labels) of 0 and 1 where there may be several.
        problem_type: not a regression.

    Returns:
        Between LOWEST and HIGHEST; above 1 for a model that is too sure.
    """
    from scipy import optimize

    logits = logits.astype(np.float64)
    examples, classes = logits.shape
    several = problem_type is ProblemType.MULTI_LABEL_CLASSIFICATION
    outcomes = 2 if several else classes
    hits = np.asarray(labels, np.float64) if several else np.eye(classes)[np.asarray(labels)]
    targets = (examples * hits + 1 / outcomes) / (examples + 1)

    def loss(temperature: float) -> float:
        scaled = logits / temperature
        if several:
            return float(np.mean(np.logaddexp(0, scaled) - targets * scaled))
        return float(np.mean(np.logaddexp.reduce(scaled, axis=-1) - (targets * scaled).sum(axis=-1)))

    # In 1 / temperature the loss is convex, so that one search finds the least.
    bounds = (1 / HIGHEST, 1 / LOWEST)
    return float(1 / optimize.minimize_scalar(lambda inverse: loss(1 / inverse), bounds=bounds, method="bounded").x)

"""Warnings of what usually is a mistake: each function looks at one thing and gives a sentence, or None."""

import numpy as np

# Where fine-tuning BERT works: Devlin et al. (2019) use 2e-5 to 5e-5; small models and heads alone take some more.
# LoRA's factors take ten times as much (Hu et al. 2021 use 2e-4 to 5e-4 with an alpha of the rank and more).
LEARNING_RATES, LORA_LEARNING_RATES = (1e-6, 5e-4), (1e-5, 5e-3)
MOST = 0.5


def of_learning_rate(learning_rate: float, *, lora: bool = False) -> str | None:
    lowest, highest = LORA_LEARNING_RATES if lora else LEARNING_RATES
    if lowest <= learning_rate <= highest:
        return None
    return (
        f"optimizer.learning_rate={learning_rate:g} is outside of {lowest:g} to {highest:g}, where fine-tuning BERT "
        "usually works"
    )


def of_truncation(lengths: np.ndarray, max_length: int) -> str | None:
    """Args: the tokens of each text, and how many it may have at most."""
    share = float(np.mean(lengths >= max_length))
    if share <= MOST:
        return None
    return f"{share:.0%} of the training texts fill data.max_length={max_length}: what is longer is cut"


def of_constant_answers(logits: np.ndarray, label_names: tuple[str, ...], num_answers: int) -> str | None:
    """Whether all validation texts are answered alike, though their labels differ.

    Args:
        logits: (texts, num_labels), of one class a text.
        label_names: in the order of the logits.
        num_answers: how many different labels the texts have.
    """
    answers = np.unique(logits.argmax(axis=-1))
    if len(answers) > 1 or num_answers < 2:
        return None
    return f"every validation text is answered {label_names[answers[0]]!r}: the model may not be learning"


def of_loss(loss: float, chance: float, epoch: int) -> str | None:
    """Whether the training loss of an epoch is no better than that of one who knows the labels' shares and no text."""
    if loss < chance:
        return None
    return (
        f"the training loss of epoch {epoch + 1}, {loss:.4f}, is not below chance, {chance:.4f}: the model may not be "
        "learning"
    )


def chance_loss(labels: np.ndarray, weights: np.ndarray | None, *, label_smoothing: float = 0.0) -> float:
    """The cross-entropy of who answers every text with the shares of the labels; of numbers, their variance.

    Args:
        labels: int [examples] classes, float [examples] numbers, or float [examples, num_labels] of 0 and 1.
        weights: float [examples]; None means all the same.
        label_smoothing: of the labels that the loss is of.
    """
    shares = np.ones(len(labels)) if weights is None else weights.astype(np.float64)
    shares = shares / shares.sum()
    if labels.ndim == 2:
        each = (1 - label_smoothing) * (shares @ labels) + label_smoothing / 2
        return float(np.mean(_entropy(each) + _entropy(1 - each)))
    if labels.dtype.kind == "f":
        return float(shares @ np.square(labels - shares @ labels))
    of_classes = np.bincount(labels, weights=shares)
    return float(_entropy((1 - label_smoothing) * of_classes + label_smoothing / len(of_classes)).sum())


def _entropy(shares: np.ndarray) -> np.ndarray:
    return -shares * np.log(np.where(shares > 0, shares, 1.0))

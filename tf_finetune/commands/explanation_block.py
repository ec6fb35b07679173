"""An explanation as it is read in a terminal."""

import itertools
import math
from typing import TYPE_CHECKING

from tf_finetune import runtime

if TYPE_CHECKING:
    from tf_finetune.evaluation.explanation import Attribution, Explanation

# Words shown by their number, those that count most first.
MOST_WORDS = 10
# Of the word that counts most: what counts less is not coloured.
FAINT = 0.1
GREEN, RED, PLAIN = "\x1b[32m", "\x1b[31m", "\x1b[0m"


def explanation_block(explanation: "Explanation", *, colour: bool) -> str:
    """A few lines: the score, the words in order with colour, the words that count most, and how exact that is.

    Texts and labels may be anybody's: of their characters only printable ones are left as they are, so that none can
    speak to the terminal or turn the direction of writing.

    Args:
        explanation: of one text or pair.
        colour: whether the words in their order are green where they speak for the label, and red where against.
    """
    words = explanation.words()
    strongest = sorted(words, key=lambda word: -abs(word.attribution))[:MOST_WORDS]
    scores = f"score {explanation.score:+.2f}, of padding alone {explanation.baseline_score:+.2f}"
    lines = [f"why {printable(explanation.label)}: {scores}"]
    least = FAINT * abs(strongest[0].attribution) if colour and words else math.inf
    for _, side in itertools.groupby(words, key=lambda word: word.side):
        lines.append("  " + " ".join(_coloured(word, least) for word in side))
    lines += [f"  {word.attribution:+7.2f}  {printable(word.piece)}" for word in strongest]
    if len(words) > len(strongest):
        rest = sum(word.attribution for word in words) - sum(word.attribution for word in strongest)
        lines.append(f"  {rest:+7.2f}  the other {len(words) - len(strongest)}")
    if explanation.truncated:
        lines.append("longer than the model reads; what was cut off added nothing")
    lines.append(f"completeness error {explanation.completeness_error:.2%} ({explanation.steps} steps)")
    return "\n".join(lines)


def _coloured(word: "Attribution", least: float) -> str:
    piece = printable(word.piece)
    if abs(word.attribution) < least or not word.attribution:
        return piece
    return f"{GREEN if word.attribution > 0 else RED}{piece}{PLAIN}"


def printable(text: str) -> str:
    """Without anything that is not written as itself: controls, marks of direction, surrogates and the like become the
    escapes of Python's strings, and white space a space."""
    return runtime.printable("".join(" " if one.isspace() else one for one in text))

"""What `drift` says of numbers that are at hand."""

from pathlib import Path

import pytest

from tf_finetune.commands.drift_words import CLASS, SHOWN_CLASSES, TOKENS, UNKNOWN, Compared, lines
from tf_finetune.evaluation.drift import Divergence, Verdict


def compared(of, verdict, *, means=None, spread=0.0, bins=None, psi_of_chance=0.01):
    """With the counts of `bins`: name -> texts of the reference and new ones."""
    bins = bins or {"up to 5": (50, 50), "above 5": (50, 50)}
    reference, new = zip(*bins.values(), strict=True)
    divergence = Divergence(tuple(bins), reference, new, 0.3, (0.2, 0.45), 0.05, (0.03, 0.07), 0.001, psi_of_chance)
    return Compared(of, means, spread, divergence, 0.004, verdict)


def said(*properties):
    return lines(properties, split="test", workdir=Path("runs/my run"))


def test_a_row_has_means_measures_and_verdict():
    row = said(compared(TOKENS, Verdict.MAJOR, means=(26.04, 54.0), spread=10.0))[1]
    assert row.split() == [
        *["tokens", "a", "text", "26.0", "54.0"],
        *["0.300", "(0.200", "to", "0.450)", "0.050", "(0.030", "to", "0.070)", "0.0040", "major"],
    ]


@pytest.mark.parametrize(
    ("means", "clause"),
    [
        ((26.0, 54.0), "the new texts are longer (a mean of 54.0 tokens instead of 26.0)"),
        ((26.0, 20.0), "the new texts are shorter (a mean of 20.0 tokens instead of 26.0)"),
        ((26.0, 27.0), "the new texts are of other lengths (a mean of 27.0 tokens instead of 26.0)"),
    ],
)
def test_in_which_direction_it_went(means, clause):
    advice = said(compared(TOKENS, Verdict.MODERATE, means=means, spread=10.0))[-1]
    assert advice == (
        f"moderate drift: {clause}: label some and evaluate before trusting the answers: "
        "tf-finetune evaluate --workdir='runs/my run' --config.data.source=LABELLED_FILE"
    )


def test_a_constant_that_moved_a_little_has_moved():
    assert "more of the tokens are unknown" in said(compared(UNKNOWN, Verdict.MAJOR, means=(0.0, 0.001)))[-1]


def test_the_class_that_grew_is_named_and_both_are_shown():
    printed = said(compared(CLASS, Verdict.MAJOR, bins={"neg": (52, 90), "pos": (48, 10)}))
    assert printed[2].split() == ["neg", "52.0%", "->", "90.0%"]
    assert printed[3].split() == ["pos", "48.0%", "->", "10.0%"]
    assert "'neg' is answered more often (90.0% instead of 52.0%)" in printed[-1]


def test_of_many_classes_those_that_changed_most_are_shown():
    bins = {f"class {index}": (100, 100 + index) for index in range(SHOWN_CLASSES + 3)}
    printed = said(compared(CLASS, Verdict.MAJOR, bins=bins))
    assert printed[2].startswith(f"  class {SHOWN_CLASSES + 2} ")
    assert printed[1 + SHOWN_CLASSES + 1] == "  and 3 more classes"


def test_classes_that_did_not_drift_are_not_listed():
    assert not any("->" in line for line in said(compared(CLASS, Verdict.STABLE, bins={"a": (9, 9), "b": (1, 1)})))


def test_several_drifts_are_one_sentence():
    advice = said(
        compared(TOKENS, Verdict.MODERATE, means=(26.0, 54.0), spread=10.0),
        compared(UNKNOWN, Verdict.MAJOR, means=(0.0, 0.02), spread=0.01),
    )[-1]
    assert advice.startswith("major drift: the new texts are longer (")
    assert " and more of the tokens are unknown (a mean of 2.00% instead of 0.00%): label some" in advice


def test_no_drift():
    stable = compared(TOKENS, Verdict.STABLE, means=(26.0, 26.0), spread=10.0)
    assert said(stable)[-1] == "no drift found: the new texts and their answers look like those of the test split"


def test_no_drift_among_few_texts_says_what_would_not_have_shown():
    stable = compared(TOKENS, Verdict.STABLE, means=(26.0, 26.0), spread=10.0, psi_of_chance=0.253)
    assert said(stable)[-1].endswith("; among so few texts a PSI below 0.25 would not stand out from chance")

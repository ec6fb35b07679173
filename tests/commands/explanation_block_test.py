import sys

from tf_finetune.commands.explanation_block import explanation_block, printable
from tf_finetune.evaluation.explanation import Attribution, Explanation


def word(piece, attribution, number=0, side=0):
    return Attribution(piece, 0, len(piece), side, number, attribution)


def explanation(*tokens, **changes):
    fields = {"score": 2.5, "baseline_score": -0.5, "completeness_error": 0.002, "steps": 32, "truncated": False}
    return Explanation("pos", tuple(tokens), **fields | changes)


def test_by_hand():
    tokens = [word("so", -0.25, 0), word("play", 1.0, 1), word("ing", 2.0, 1), word("well", 0.25, 0, side=1)]
    assert explanation_block(explanation(*tokens), colour=False).splitlines() == [
        "why pos: score +2.50, of padding alone -0.50",
        "  so playing",
        "  well",
        "    +3.00  playing",
        "    -0.25  so",
        "    +0.25  well",
        "completeness error 0.20% (32 steps)",
    ]


def test_colours():
    tokens = [word("good", 2.0, 0), word("the", 0.1, 1), word("bad", -1.0, 2)]
    line = explanation_block(explanation(*tokens), colour=True).splitlines()[1]
    assert line == "  \x1b[32mgood\x1b[0m the \x1b[31mbad\x1b[0m"


def test_of_many_words_the_strongest():
    lines = explanation_block(explanation(*(word("w", float(i), i) for i in range(13))), colour=False).splitlines()
    assert len(lines) == 1 + 1 + 10 + 1 + 1
    assert lines[2].split() == ["+12.00", "w"]
    assert lines[-2] == "    +3.00  the other 3"


def test_a_text_that_was_cut():
    block = explanation_block(explanation(word("a", 1.0), truncated=True), colour=False)
    assert "longer than the model reads; what was cut off added nothing\n" in block


def test_no_words():
    assert len(explanation_block(explanation(), colour=True).splitlines()) == 2


def test_a_hostile_label():
    hostile = Explanation("\x1b[2J\u202e", (), 0.0, 0.0, 0.0, 32, False)
    assert explanation_block(hostile, colour=False).startswith("why \\x1b[2J\\u202e: ")


def test_every_character_can_be_printed():
    everything = "".join(map(chr, range(sys.maxunicode + 1)))
    shown = printable(everything)
    assert shown.isprintable()
    assert shown.encode("utf-8")


def test_words_of_all_writings_stay_as_they_are():
    text = "naïve 中文 हिन्दी עברית 😀"
    assert printable(text) == text

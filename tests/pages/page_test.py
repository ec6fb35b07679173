import base64
import re

import pytest

from tf_finetune.pages import figures, page


class TestShown:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("plain text, 日本語 and émoji 👩\u200d🚀", "plain text, 日本語 and émoji 👩\u200d🚀"),
            ("two\nlines\tand a tab", "two\nlines\tand a tab"),
            ("\u202egnirts", "\\u202egnirts"),
            ("nul \x00, escape \x1b[31m, bell \x07", "nul \\x00, escape \\x1b[31m, bell \\x07"),
            ("half a pair \ud800", "half a pair \\ud800"),
        ],
    )
    def test_what_would_steer_the_reader_is_spelt_out(self, text, expected):
        assert page.shown(text) == expected

    def test_a_long_text_is_cut(self):
        shown = page.shown("x" * 2**20)
        assert shown == "x" * page.MOST_CHARACTERS + " [...] (1,048,576 characters)"


class TestFigures:
    def svg(self, address):
        head, _, content = address.partition(",")
        assert head == "data:image/svg+xml;base64"
        return base64.b64decode(content).decode()

    def test_learning_curves(self):
        records = [
            {"split": split, "step": step, "loss": 1 / step} for step in (1, 2, 3) for split in ("train", "validation")
        ]
        svg = self.svg(figures.learning_curves(records, "loss"))
        assert {"line-0", "line-1"} <= set(re.findall(r'id="([\w-]+)"', svg))
        assert ">step</text>" in svg
        assert "prefers-color-scheme:dark" in svg

    def test_the_ink_is_the_reader_s(self):
        svg = self.svg(figures.curves([([0, 1], [0, 1])], x="x", y="y", diagonal=True))
        assert figures.INK not in svg
        assert "currentColor" in svg

    def test_the_same_figure_is_the_same_file(self):
        one, again = (figures.curves([([0, 1], [0, 1])], x="x", y="y", diagonal=False) for _ in range(2))
        assert one == again

    def test_the_user_s_style_changes_nothing(self):
        import matplotlib

        plain = figures.curves([([0, 1], [0, 1])], x="x", y="y", diagonal=False)
        with matplotlib.rc_context({"axes.facecolor": "black", "font.size": 30}):
            assert figures.curves([([0, 1], [0, 1])], x="x", y="y", diagonal=False) == plain

    def test_more_curves_than_colours(self):
        svg = self.svg(figures.curves([([0, 1], [0, 1])] * 9, x="x", y="y", diagonal=False))
        assert len(set(re.findall(r'id="(line-\d)"', svg))) == figures.MOST_CURVES

    def test_reliability_of_a_single_bin(self):
        series = {"answers": [3], "confidence": [0.9], "accuracy": [1.0]}
        assert "points-0" in self.svg(figures.reliability_diagram([series, series]))

"""Figures as SVG that follow the reader's light or dark mode; no text of the data is in them."""

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Inches. Two stand side by side on a desktop, and on a phone the letters are still 10 pixels high.
SIZE = (4.2, 3.0)
# Colours of the lines in light and in dark mode, which colour-blind readers tell apart (after Okabe and Ito 2008).
LIGHT = ("#0065a3", "#b34700", "#00694d", "#8a2f6b")
DARK = ("#6cb8ee", "#ffa45c", "#4fd0a5", "#e59acb")
# Curves of more classes are not told apart.
MOST_CURVES = len(LIGHT)
# Every letter and axis is drawn in it, and it is then the page's own.
INK = "#010203"


def learning_curves(records: Sequence[Mapping[str, Any]], metric: str) -> str:
    """The metric of training and of validation by step; of training where it was measured."""

    def draw(axes: "Axes") -> None:
        for number, split in enumerate(("train", "validation")):
            points = [(one["step"], one[metric]) for one in records if one["split"] == split and metric in one]
            if points:
                axes.plot(*zip(*points, strict=True), marker="o", markersize=3, gid=f"line-{number}")
        axes.set(xlabel="step", ylabel=metric)

    return _image(draw)


def curves(lines: Sequence[tuple[Sequence[float], Sequence[float]]], *, x: str, y: str, diagonal: bool) -> str:
    """Up to MOST_CURVES curves of shares, each a list of x and one of y."""

    def draw(axes: "Axes") -> None:
        if diagonal:
            axes.plot([0, 1], [0, 1], color=INK, linewidth=0.8, linestyle=":")
        for number, line in enumerate(lines[:MOST_CURVES]):
            axes.plot(*line, gid=f"line-{number}")
        axes.set(xlabel=x, ylabel=y, xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))

    return _image(draw)


def reliability_diagram(bins: Sequence[Mapping[str, Any]]) -> str:
    """Share of right answers by confidence; a point a bin, larger where there are more answers; one series each."""

    def draw(axes: "Axes") -> None:
        axes.plot([0, 1], [0, 1], color=INK, linewidth=0.8, linestyle=":")
        lowest = 1.0
        for number, series in enumerate(bins):
            answers = np.array(series["answers"])
            sizes = 8 + 150 * answers / answers.sum()
            axes.plot(series["confidence"], series["accuracy"], linewidth=0.8, gid=f"line-{number}")
            axes.scatter(series["confidence"], series["accuracy"], s=sizes, alpha=0.75, gid=f"points-{number}")
            lowest = min(lowest, *series["confidence"], *series["accuracy"])
        axes.set(xlabel="confidence", ylabel="share of right answers", xlim=(lowest - 0.03, 1.02))
        axes.set_ylim(lowest - 0.03, 1.02)

    return _image(draw)


def _image(draw: "Callable[[Axes], None]") -> str:
    """The figure as the address of an <img>."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    ink = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
    look = {"svg.fonttype": "none", "svg.hashsalt": "report", "font.family": "sans-serif", "font.size": 10}
    look |= {"axes.spines.top": False, "axes.spines.right": False}
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # the reader's own style would bring its own colours
        matplotlib.rcParams.update(look | dict.fromkeys(ink, INK))
        figure = Figure(figsize=SIZE, layout="constrained")
        axes = figure.subplots()
        draw(axes)
        axes.grid(color=INK, alpha=0.12)
        content = io.BytesIO()
        FigureCanvasSVG(figure).print_svg(content, metadata={"Date": None, "Creator": None})
    svg = content.getvalue().decode("utf-8").replace(INK, "currentColor")
    head, separator, rest = svg.partition("<defs>")
    svg = f"{head}{separator}<style>{_style()}</style>{rest}"
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()


def _style() -> str:
    """Light and dark: the ink, the colours of lines and points, and no background."""
    rules = ["svg{color:#1d2329}text{fill:currentColor}#patch_1,#patch_2{display:none}", _colors(LIGHT)]
    rules.append("@media(prefers-color-scheme:dark){svg{color:#e3e8ec}" + _colors(DARK) + "}")
    return "".join(rules)


def _colors(colors: Sequence[str]) -> str:
    return "".join(
        f"#line-{n} path,#line-{n} use{{stroke:{color}!important}}"
        f"#line-{n} use,#points-{n} use,#points-{n} path{{fill:{color}!important;stroke:{color}!important}}"
        for n, color in enumerate(colors)
    )

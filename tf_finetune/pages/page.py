"""The page: facts in, one HTML file out that needs nothing beside itself."""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tf_finetune import runtime
from tf_finetune.pages import figures

# Characters of a text, or of a piece of one that is explained, that the page shows; the JSON beside it has all.
MOST_CHARACTERS = 600
# Not printable to Python, and harmless: line's end and tab, spaces of other widths, and the two joiners, without which
# Persian, Hindi and families of emoji are spelt wrong.
SPARED = "\n\t\u00a0\u2002\u2003\u2009\u202f\u3000\u200c\u200d"


def render(facts: Mapping[str, Any]) -> str:
    """The page of a report.

    Args:
        facts: what `commands.report` writes as report.json.
    """
    template = _environment().get_template("page.html.jinja")
    style = (Path(__file__).parent / "page.css").read_text(encoding="utf-8")
    return template.render(**facts, style=style)


def shown(text: object) -> str:
    """A text of anybody's as the page shows it: what would turn or break the lines around it is spelt out.

    These are control characters and those that change the direction of writing; see SPARED.
    """
    text = str(text)
    cut = text[:MOST_CHARACTERS]
    visible = runtime.printable(cut, spared=SPARED)
    return visible if cut == text else f"{visible} [...] ({len(text):,} characters)"


@functools.cache
def _environment() -> Any:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "shown": shown,
        "number": _number,
        "percent": _percent,
        "learning_curves": figures.learning_curves,
        "reliability_diagram": figures.reliability_diagram,
        "curves": figures.curves,
    }
    return environment


def _number(value: float | int | None) -> str:
    """Four digits behind the point; thousands apart; a dash where there is none."""
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"


def _percent(value: float) -> str:
    return f"{value:.1%}"

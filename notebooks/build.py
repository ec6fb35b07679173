"""Makes finetune_imdb.ipynb of finetune_imdb.py, without outputs; `make notebook` calls it.

Where the project is on GitHub stands in the script alone, as REPOSITORY. From there it comes into the badges, which are
in the notebook and in the README.
"""

import re
from pathlib import Path

import jupytext
import nbformat

SCRIPT = Path(__file__).with_name("finetune_imdb.py")
NOTEBOOK = SCRIPT.with_suffix(".ipynb")
README = SCRIPT.parent.parent / "README.md"
BADGE = re.compile(r"(https://colab\.research\.google\.com/github/)[^/\s]+/[^/\s]+(/blob/main/notebooks/)")


def built() -> dict[Path, str]:
    """What each of the three files is to hold."""
    script, readme = (path.read_text(encoding="utf-8") for path in (SCRIPT, README))
    [repository] = re.findall(r'^REPOSITORY = "(.+)"$', script, flags=re.MULTILINE)
    script, readme = (BADGE.sub(rf"\g<1>{repository}\g<2>", text) for text in (script, readme))
    return {SCRIPT: script, README: readme, NOTEBOOK: notebook(script)}


def notebook(script: str) -> str:
    """The notebook's file of the script's text; the same one every time."""
    made = jupytext.reads(script, fmt="py:percent")
    del made.metadata["jupytext"]
    for number, cell in enumerate(made.cells):
        cell.id = f"cell-{number}"
    return nbformat.writes(made) + "\n"


if __name__ == "__main__":
    for path, text in built().items():
        path.write_text(text, encoding="utf-8")

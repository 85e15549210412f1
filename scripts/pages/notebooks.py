"""A notebook of examples/ with its stored outputs as a page in Markdown.

Not by a plugin: those that exist fetch scripts from elsewhere when the page is opened.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))
_FIGURE = "application/vnd.plotly.v1+json"


def page(path: Path) -> str:
    """The page of a notebook; its figures are drawn by plotly.js, which is part of the site."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    parts = [part for number, cell in enumerate(cells) for part in _cell(cell, number)]
    parts.insert(1, f"*This page is the notebook `examples/{path.name}` with the outputs of a run.*")
    if any('class="figure"' in part for part in parts):
        parts.append('<script src="../assets/plotly.min.js"></script>\n<script src="../figures.js"></script>')
    return "\n\n".join(parts) + "\n"


def plotly_script() -> str:
    """plotly.js, as the plotly package has it."""
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())


def _cell(cell: dict[str, Any], number: int) -> Iterator[str]:
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        yield source
        return
    yield f"```python\n{source}\n```"
    for place, output in enumerate(cell["outputs"]):
        yield _output(output, f"figure-{number}-{place}")


def _output(output: dict[str, Any], name: str) -> str:
    data = output.get("data", {})
    if _FIGURE in data:
        figure = {key: data[_FIGURE][key] for key in ("data", "layout")}
        content = json.dumps(figure).replace("</", "<\\/")
        script = f'<script type="application/json" data-for="{name}">{content}</script>'
        return f'<div class="figure" id="{name}"></div>\n{script}'
    if "text/html" in data:
        return f'<div class="output" tabindex="0" markdown="0">{_compact("".join(data["text/html"]))}</div>'
    text = "".join(output.get("text") or data["text/plain"])
    return f'<div class="output" tabindex="0" markdown="0"><pre>{html.escape(text.rstrip())}</pre></div>'


def _compact(text: str) -> str:
    """HTML of a data frame without its style sheet and blank lines, at which Markdown would begin anew.

    Lines of preformatted text are kept.
    """
    text = re.sub(r"<style.*?</style>", "", text, flags=re.S)
    text = re.sub(r"<pre.*?</pre>", lambda found: found[0].replace("\n", "&#10;"), text, flags=re.S)
    text = re.sub(r' border="1"| style="text-align: right;"', "", text)
    text = text.replace("<th></th>", "<td></td>")  # a heading without words, which screen readers announce
    return re.sub(r"\n\s*", "", text)

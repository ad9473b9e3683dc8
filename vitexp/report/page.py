"""Self-contained HTML: one file, no network, no external script, every picture inside; what is shown is escaped.

The templates stand beside this file. Text of any origin (run names, classes, paths) reaches them as plain strings,
which Jinja escapes; charts travel as JSON that cannot close its own script element.
"""

import base64
import json
import math
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

if TYPE_CHECKING:
    from jinja2 import Environment

FOLDER = Path(__file__).parent / "templates"
_BIG = 1700  # pixels


@cache
def _environment() -> "Environment":
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(loader=FileSystemLoader(FOLDER), autoescape=True, undefined=StrictUndefined, trim_blocks=True)


def render(template: str, *, charts: Sequence[Mapping[str, Any]], context: Mapping[str, Any], refresh: int = 0) -> str:
    """A page.

    Args:
        template: a file of templates/.
        charts: what page.js draws: title, xlabel and series of `name`, `x`, `y`; the template names them by index.
        context: the template's own variables.
        refresh: seconds after which the browser loads the page again; 0 is never.
    """
    shared = {
        "style": Markup((FOLDER / "style.css").read_text(encoding="utf-8")),
        "script": Markup((FOLDER / "page.js").read_text(encoding="utf-8")),
        "charts": Markup(as_json(charts)),
        "version": version("vitexp"),
        "refresh": refresh,
    }
    return _environment().get_template(template).render({**shared, **context})


def as_json(value: object) -> str:
    """JSON for a script element: no `<`, so no `</script>`; numbers that JSON lacks raise ValueError."""
    return json.dumps(value, allow_nan=False).replace("<", "\\u003c")


def picture(content: bytes, caption: str) -> dict[str, Any]:
    """A PNG as part of the page; `big` for one of several panels, which needs the page's whole width."""
    width = int.from_bytes(content[16:20], "big")  # where the format has it
    data = f"data:image/png;base64,{base64.b64encode(content).decode('ascii')}"
    return {"data": data, "caption": caption, "big": width > _BIG}


def line(name: str, rows: Sequence[Mapping[str, float]], column: str, *, x: str = "step") -> dict[str, Any] | None:
    """The finite values of one column against another as a series, or None where there are none."""
    points = [(row[x], row[column]) for row in rows if math.isfinite(row.get(column, math.nan)) and x in row]
    if not points:
        return None
    return {"name": name, "x": [a for a, _ in points], "y": [b for _, b in points]}


def number_cell(value: float | None, text: str, *, link: str = "") -> dict[str, Any]:
    """A cell that sorts by its value and shows its text."""
    finite = value is not None and math.isfinite(value)
    return {"value": value if finite else None, "text": text, "link": link}

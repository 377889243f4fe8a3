"""The frame every page shares: one file, no script, no network; for phones, the dark and paper."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path

from llm import files

_STYLE = (Path(__file__).parent / "page.css").read_text(encoding="utf-8")


def document(title: str, body: Iterable[str | None]) -> str:
    """A whole page of sections; None is left out."""
    inside = "\n".join(part for part in body if part)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        # Nothing may be fetched or run, whatever text a model wrote into the page.
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\">\n"
        f"<title>{escape(title)}</title>\n<style>\n{_STYLE}</style>\n</head>\n<body>\n<main>\n{inside}\n</main>\n"
        "</body>\n</html>\n"
    )


def write(path: Path, title: str, body: Iterable[str | None]) -> Path:
    """Writes the page to `path`, whole or not at all."""
    files.write_text(path, document(title, body))
    return path


def section(title: str, *parts: str | None, lead: str = "") -> str | None:
    """A titled part of the page; None when nothing is in it."""
    inside = [part for part in parts if part]
    if not inside:
        return None
    said = f'<p class="lead">{escape(lead)}</p>' if lead else ""
    return f"<section>\n<h2>{escape(title)}</h2>\n{said}{''.join(inside)}\n</section>"


def table(
    head: Sequence[str], rows: Iterable[Sequence[object]], *, numbers: Iterable[int] = (), classes: str = ""
) -> str:
    """A table; columns in `numbers` are set to the right."""
    right = set(numbers)

    def cell(tag: str, index: int, value: object) -> str:
        kind = ' class="number"' if index in right else ""
        return f"<{tag}{kind}>{escape(str(value))}</{tag}>"

    top = "".join(cell("th", i, name) for i, name in enumerate(head))
    body = "".join("<tr>" + "".join(cell("td", i, v) for i, v in enumerate(row)) + "</tr>\n" for row in rows)
    thead = f"<thead><tr>{top}</tr></thead>" if head else ""
    return (
        f'<div class="scroll"><table class="{escape(classes)}">{thead}<tbody>\n{body}</tbody></table></div>'
    )


def facts(pairs: Mapping[str, object]) -> str | None:
    """Labels and values, as a definition list."""
    if not pairs:
        return None
    inside = "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(str(v))}</dd></div>" for k, v in pairs.items())
    return f'<dl class="facts">{inside}</dl>'


def tiles(pairs: Sequence[tuple[str, str]]) -> str | None:
    """The few numbers a reader came for."""
    if not pairs:
        return None
    inside = "".join(
        f'<div class="tile"><b>{escape(value)}</b><span>{escape(name)}</span></div>' for name, value in pairs
    )
    return f'<div class="tiles">{inside}</div>'


def plot(svg: str | None, caption: str = "", *, narrow: bool = False) -> str | None:
    """A figure with words under it; a `narrow` one does not grow with the page."""
    if svg is None:
        return None
    below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    kind = ' class="narrow"' if narrow else ""
    return f"<figure{kind}>{svg}{below}</figure>"


def row(*parts: str | None, small: bool = False) -> str | None:
    """Parts side by side where there is room; more of them when they are `small`."""
    inside = [part for part in parts if part]
    kind = "row small" if small else "row"
    return f'<div class="{kind}">{"".join(inside)}</div>' if inside else None


def commands(pairs: Mapping[str, str]) -> str | None:
    """Commands to copy, each with what it does."""
    if not pairs:
        return None
    return "".join(
        f'<p class="what">{escape(what)}</p><pre class="command">{escape(line)}</pre>'
        for what, line in pairs.items()
    )

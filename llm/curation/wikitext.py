"""MediaWiki's markup to plain text.

By mwparserfromhell: of the parsers on PyPI that are kept up it is the one with a tokenizer in C, and it
gives a tree, so what a reader would see of a template, a table or a note is decided here and not by regular
expressions.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Set
from typing import Any

HIDDEN = frozenset({
    *("ref", "references", "table", "gallery", "timeline", "score", "imagemap", "graph", "hiero", "section"),
    *("templatestyles", "mapframe", "maplink", "indicator", "inputbox"),
})  # fmt: skip
"""Tags of which plain text keeps nothing."""

TEMPLATES = {
    "lang": -1,
    "nowrap": 0,
    "nobr": 0,
    "transl": -1,
    "transliteration": -1,
    "abbr": 0,
    "small": 0,
    "as of": 0,
}
"""Templates that stand in the middle of a sentence, and which of their unnamed arguments is its word."""

MAX_UNCLOSED = 500
"""Brackets or tags that nothing closes: on more of them the parser's time would grow with their square."""
OPEN_TAG = re.compile(r"<[a-zA-Z][^<>]*(?=<|\Z)")
PAIRS = tuple(
    re.compile(pattern)
    for pattern in (
        r"(?P<open>\{\{)|\}\}",
        r"(?P<open>\[\[)|\]\]",
        r"(?P<open>\{\|)|\|\}",
        r"(?P<open>(?<!\[)\[(?:[a-zA-Z]+:|//))|(?P<other>\]\])|\]",
        r"(?P<open><(?!br|hr|li|wbr|p\b)[a-zA-Z][^<>/]*>)|</",
    )
)
"""What opens something and what closes it: templates, links, tables, links outside, tags."""

HEADING = "\x1e"
"""Our mark of a line that is one; taken out of the page's own characters."""
SWITCH = re.compile(r"__[A-Z]+__")
EMPTY_BRACKETS = re.compile(r" ?[(（][ ,;:.–-]{0,20}[)）]")  # noqa: RUF001  (those of East Asian texts)
INTERLANGUAGE = re.compile(r"[a-z]{2,3}(-[a-z-]+)?")


def plain_text(markup: str, dropped: Set[str] = frozenset({"file", "image", "category"})) -> str | None:
    """What a reader sees as running text: no templates, tables, notes, pictures and categories.

    Headings stay as lines of their own; a section of which nothing is left goes with its heading.

    Args:
        markup: A page's source.
        dropped: Namespaces, in small letters, whose links show nothing in the text.

    Returns:
        The text, empty where nothing is left; None where the markup is broken beyond parsing.
    """
    import mwparserfromhell

    if _unclosed(markup) > MAX_UNCLOSED:
        return None
    try:
        tree = mwparserfromhell.parse(markup.replace(HEADING, ""), skip_style_tags=False)
        text = "".join(_words(tree, dropped))
    except (mwparserfromhell.parser.ParserError, RecursionError, ValueError):
        return None
    text = EMPTY_BRACKETS.sub("", SWITCH.sub("", text))
    lines = [re.sub(r"[ \t]+", " ", line).strip(" ") for line in text.split("\n")]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(_filled(lines))).strip()


def _unclosed(markup: str) -> int:
    return max(len(OPEN_TAG.findall(markup)), *(_left_open(markup, pair) for pair in PAIRS))


def _left_open(markup: str, pair: re.Pattern[str]) -> int:
    """Openings that nothing behind them closes; what closes nothing makes up for none."""
    left = 0
    for found in pair.finditer(markup):
        if found.lastgroup == "open":
            left += 1
        elif found.lastgroup is None:
            left = max(0, left - 1)
    return left


def _words(tree: Any, dropped: Set[str]) -> Iterator[str]:
    for node in tree.nodes:
        kind = type(node).__name__
        if kind == "Text":
            yield str(node.value)
        elif kind == "Wikilink":
            yield from _link(node, dropped)
        elif kind == "ExternalLink":
            yield from _words(node.title, dropped) if node.title is not None else ()
        elif kind == "HTMLEntity":
            yield str(node.normalize()).replace(HEADING, "")
        elif kind == "Heading":
            title = "".join(_words(node.title, dropped)).strip()
            yield f"\n{HEADING}{node.level}{title}\n"
        elif kind == "Tag":
            yield from _tag(node, dropped)
        elif kind == "Template":
            yield from _template(node, dropped)


def _link(node: Any, dropped: Set[str]) -> Iterator[str]:
    title = str(node.title).strip()
    space, colon, _ = title.partition(":")
    space = space.strip().lower()
    # a colon in front shows the link itself, as in [[:Category:Birds]]
    if colon and space and (space in dropped or (node.text is None and INTERLANGUAGE.fullmatch(space))):
        return
    if node.text is None:
        yield title.removeprefix(":")
    else:
        yield from _words(node.text, dropped)


def _tag(node: Any, dropped: Set[str]) -> Iterator[str]:
    name = str(node.tag).strip().lower()
    if name in HIDDEN:
        return
    if name == "br":
        yield "\n"
    elif name == "li" and node.wiki_markup:
        yield "- "
    elif node.contents is not None:
        yield from _words(node.contents, dropped)


def _template(node: Any, dropped: Set[str]) -> Iterator[str]:
    name = str(node.name).strip().lower()
    place = TEMPLATES.get("lang" if name.startswith("lang-") else name)
    unnamed = [one.value for one in node.params if not one.showkey]
    if place is not None and unnamed:
        yield from _words(unnamed[place], dropped)


def _filled(lines: list[str]) -> Iterator[str]:
    """The lines without the headings under which nothing stands."""
    kept: list[str] = []
    below = 0  # the level of a heading that something stands under, seen from the end of the page
    filled = False
    for line in reversed(lines):
        if not line.startswith(HEADING):
            filled = filled or bool(line)
            kept.append(line)
            continue
        level, title = int(line[1]), line[2:]
        # a heading is filled by what is right below it, or by a filled heading of a deeper level
        if filled or below > level:
            kept.append(title)
            below, filled = level, False
    yield from reversed(kept)

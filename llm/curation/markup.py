"""Documentation markup (reStructuredText, numpydoc, Google style) to plain sentences."""

from __future__ import annotations

import re
from collections.abc import Mapping
from inspect import cleandoc

ROLE = re.compile(r":(?:[a-zA-Z][\w+.-]*:)?[a-zA-Z][\w+-]*:`~?([^`]*)`")
LINK = re.compile(r"`([^`<>]+?)\s*<[^`<>]*>`_{0,2}")
REFERENCE = re.compile(r"`([^`]+)`_{1,2}(?!\w)")
SUBSTITUTION = re.compile(r"\|([A-Za-z][\w ]*)\|")
SECTION = re.compile(
    r"(args?|arguments|parameters?|keyword args?|keyword arguments|returns?|yields?|raises?|examples?|notes?|"
    r"see also|references|warnings?|attributes|methods|shape|inputs?|outputs?|usage|example usage)\s*:{0,2}",
    re.IGNORECASE,
)
FIELD = re.compile(r":(param|type|return|returns|rtype|raises|arg)\b[^:]*:", re.IGNORECASE)
SENTENCE_END = re.compile(r"(?<=[a-z0-9)\]`'\"])[.!?](?=\s+[A-Z`(])")
ABBREVIATION = re.compile(r"(?:\b(?:e\.g|i\.e|etc|vs|cf|al|approx|resp|Eq|Fig|No)|\b[A-Za-z])$")
GOOGLE_PARAMETER = re.compile(r"^\s*[*]{0,2}(\w+)\s*(?:\([^)]*\))?\s*:\s+(\S.*)$")
NUMPY_PARAMETER = re.compile(r"^([*]{0,2}\w+(?:\s*,\s*[*]{0,2}\w+)*)\s*(?::.*)?$")
FIELD_PARAMETER = re.compile(
    r"^:(?:param|arg)\s+(?:[\w.\[\]]+\s+)?(\w+):\s*(.+(?:\n[ \t]+\S.*)*)", re.MULTILINE
)
FIELD_RETURNS = re.compile(r"^:returns?:\s*(.+(?:\n[ \t]+\S.*)*)", re.MULTILINE)
CALL = re.compile(r"(?:[A-Za-z_][\w.]*\.)?(\w+)\s*\(")
PLACEHOLDER_LINE = re.compile(r"^\s*\{\w+\}\s*$")


def plain(doc: str) -> str:
    """A docstring without indentation, roles, links and placeholders; its lines stay lines."""
    lines = [line.rstrip() for line in cleandoc(doc).splitlines() if not PLACEHOLDER_LINE.match(line)]
    return inline(re.sub(r"\n{3,}", "\n\n", "\n".join(lines))).strip()


def inline(text: str) -> str:
    """Inline markup as plain words: ``:func:`x` `` and double backquotes become single backquotes."""
    text = re.sub(r"\\ ", "", text)  # an escaped space only ends inline markup
    text = ROLE.sub(lambda found: _role_text(found[1]), text)
    text = LINK.sub(r"\1", text)
    text = text.replace("``", "`")
    text = REFERENCE.sub(r"\1", text)
    text = SUBSTITUTION.sub(r"\1", text)
    return re.sub(r"\\([*_`|])", r"\1", text)


def _role_text(content: str) -> str:
    title = re.match(r"(.*?)\s*<[^<>]*>$", content, re.DOTALL)
    return title[1] if title and title[1] else f"`{content.strip('~!').removeprefix('.')}`"


def paragraphs(text: str) -> list[str]:
    """Blank-line separated parts of a text, inner whitespace made one space; lists and code left out."""
    found = []
    for block in re.split(r"\n\s*\n", text):
        if block.strip():
            found.append(block.strip("\n"))
    return found


def split_signature(doc: str, leaf: str) -> tuple[str, str]:
    """A leading `name(args) -> result` line of the documentation of a C function, and the rest."""
    text = doc.lstrip()
    # numpy's parser convention: signature, a line of two dashes, the signature again
    first = CALL.match(text)
    if not first or first[1] != leaf:
        return "", doc
    depth, end = 0, 0
    for place, letter in enumerate(text[:600]):
        depth += (letter in "([{") - (letter in ")]}")
        if letter in ")]}" and depth == 0:
            end = place + 1
            break
    if not end:
        return "", doc
    tail = re.match(r"[ \t]*(->[^\n]*)?[ \t]*(?=\n|$)", text[end:])
    if not tail:
        return "", doc
    signature = " ".join((text[first.end() - 1 : end] + " " + (tail[1] or "")).split())
    rest = re.sub(r"^\s*--\s*\n", "", text[end + tail.end() :].lstrip("\n"))
    again = split_signature(rest, leaf)
    return signature, again[1] if again[0] else rest


def summary(text: str, max_chars: int) -> str:
    """The first sentences of a plain documentation, within a length; empty when there is none to quote."""
    for block in paragraphs(text):
        lines = block.splitlines()
        first = lines[0].strip()
        if (
            first.startswith((".. ", ">>>", "...", "|", "+--", "=="))
            or SECTION.fullmatch(first)
            or FIELD.match(first)
        ):
            if first.startswith(".. ") and not found_later(first):
                continue  # a directive such as a version note: the description may still follow
            return ""
        if len(lines) > 1 and re.fullmatch(r"[=\-~^*]{3,}", lines[1].strip()):
            return ""  # a heading, so this is an article and not the description of one thing
        kept = []
        for line in lines:
            if FIELD.match(line.strip()) or SECTION.fullmatch(line.strip()) or line.strip().startswith(".. "):
                break
            kept.append(line)
        return _sentences(" ".join(" ".join(kept).split()), max_chars)
    return ""


def found_later(first: str) -> bool:
    """True for a directive after which nothing belongs to the description."""
    return first.startswith((".. code", ".. testsetup", ".. plot", ".. math"))


def _sentences(text: str, max_chars: int) -> str:
    """As many whole sentences as fit, at least the first; empty when even that is too long."""
    ends = [
        found.end() for found in SENTENCE_END.finditer(text) if not ABBREVIATION.search(text[: found.start()])
    ]
    ends.append(len(text))
    fitting = [end for end in ends[:2] if end <= max_chars]
    return text[: fitting[-1]].strip() if fitting else ""


def sections(text: str) -> dict[str, list[str]]:
    """Lines under each heading of a numpydoc or Google docstring, by lower-case heading."""
    found: dict[str, list[str]] = {}
    current: list[str] | None = None
    lines = text.splitlines()
    skip = False
    for place, line in enumerate(lines):
        if skip:
            skip = False
            continue
        name = line.strip()
        # the cheap questions first: this runs over every line of every docstring
        heading = len(name) < 24 and bool(line[:1].strip()) and bool(SECTION.fullmatch(name))
        below = lines[place + 1].strip() if heading and place + 1 < len(lines) else ""
        underlined = len(below) >= 3 and not below.strip("-=")
        if heading and (underlined or name.endswith(":")):
            current = found.setdefault(name.rstrip(":").strip().lower(), [])
            skip = underlined
        elif current is not None:
            current.append(line)
    return found


def parameters(text: str, parts: Mapping[str, list[str]]) -> tuple[tuple[str, str], ...]:
    """Documented parameters: name and the first sentence of the description. `parts` are its `sections`."""
    found: list[tuple[str, str]] = []
    for match in FIELD_PARAMETER.finditer(text) if ":param" in text or ":arg" in text else ():
        found.append((match[1], " ".join(match[2].split())))
    for heading in (
        "parameters",
        "args",
        "arguments",
        "keyword args",
        "keyword arguments",
        "other parameters",
    ):
        found += _listed(parts.get(heading, []))
    short = [(name, _sentences(described, 200)) for name, described in found]
    return tuple((name, described) for name, described in short if len(described.split()) >= 3)


def _listed(lines: list[str]) -> list[tuple[str, str]]:
    """Entries of a parameter section: `name : type` over an indented text, or `name (type): text`."""
    body = [line for line in lines if line.strip()]
    if not body:
        return []
    margin = min(len(line) - len(line.lstrip()) for line in body)
    entries: list[tuple[str, list[str]]] = []
    for line in body:
        indent, content = len(line) - len(line.lstrip()), line.strip()
        if indent == margin:
            google = GOOGLE_PARAMETER.match(content)
            numpy = NUMPY_PARAMETER.match(content)
            if google and margin > 0:
                entries.append((google[1], [google[2]]))
            elif numpy and margin == 0 and "," not in numpy[1]:
                entries.append((numpy[1].lstrip("*"), []))
            else:
                entries.append(("", []))
        elif entries:
            entries[-1][1].append(content)
    return [(name, " ".join(" ".join(texts).split())) for name, texts in entries if name and texts]


def returns(text: str, parts: Mapping[str, list[str]]) -> str:
    """First sentence of the documented result; empty when there is none. `parts` are its `sections`."""
    match = FIELD_RETURNS.search(text) if ":return" in text else None
    if match:
        return _sentences(" ".join(match[1].split()), 200)
    for heading in ("returns", "return", "yields"):
        lines = [line for line in parts.get(heading, []) if line.strip()]
        if not lines:
            continue
        deeper = [line for line in lines if line.startswith((" ", "\t"))]
        first = next((i for i, line in enumerate(lines) if line.startswith((" ", "\t"))), 0)
        chosen: list[str] = []
        for line in lines[first:] if deeper else []:
            if not line.startswith((" ", "\t")):
                break
            chosen.append(line.strip())
        return _sentences(" ".join(" ".join(chosen).split()), 200)
    return ""

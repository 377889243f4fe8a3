"""What licence a source file is under: by its SPDX header, or by the licence file nearest above it."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

# a module may be called license.py
SOURCES = (
    "c|cc|cpp|cs|css|cu|cxx|dart|ex|exs|go|h|hh|hpp|hs|java|jl|js|json|jsx|kt|lua|mjs|ml|php|pl|pm|ps1|py|pyi|r|rb|"
    "rs|scala|sh|sql|swift|ts|tsx|xml|ya?ml|zig"
)
NAMES = re.compile(rf"(?!.*\.({SOURCES})$)(licen[sc]e|copying|unlicense)([-._].*)?", re.IGNORECASE)
# of spaces in a row no two parts of the pattern may take some, or a long row is tried in every division
HEADER = re.compile(
    r"SPDX-License-Identifier:\s*+([\w.+()-](?:[\w.+() -]*[\w.+()-])?)[^\S\n]*+(?:\*/|-->|[\"'#;]|$)",
    re.MULTILINE,
)
READ_BYTES = 1 << 16

PHRASES = (
    # the whole text, which names the GNU licences as secondary ones
    ("MPL-2.0", "mozilla public license version 2.0 1 definitions"),
    ("AGPL-3.0", "gnu affero general public license version 3"),
    ("LGPL-3.0", "gnu lesser general public license version 3"),
    ("LGPL-2.1", "gnu lesser general public license version 2.1"),
    ("LGPL-2.0", "gnu library general public license version 2"),
    ("GPL-3.0", "gnu general public license version 3"),
    ("GPL-2.0", "gnu general public license version 2"),
    ("Apache-2.0", "apache license version 2.0"),
    ("MPL-2.0", "mozilla public license version 2.0"),
    ("EPL-2.0", "eclipse public license v 2.0"),
    ("BSL-1.0", "boost software license version 1.0"),
    ("CC0-1.0", "cc0 1.0 universal"),
    ("CC-BY-SA-4.0", "attribution sharealike 4.0 international"),
    ("CC-BY-4.0", "attribution 4.0 international"),
    ("Unlicense", "this is free and unencumbered software released into the public domain"),
    ("BSD-3-Clause", "neither the name of"),
    ("BSD-2-Clause", "redistributions in binary form must reproduce the above copyright notice"),
    ("ISC", "permission to use copy modify and or distribute this software for any purpose"),
    ("Zlib", "the origin of this software must not be misrepresented"),
    ("MIT", "permission is hereby granted free of charge to any person obtaining a copy"),
)
"""What a licence's text says and those further down the list do not, its words in small letters. A file that
names two licences, such as one that quotes the GPL beside its own, is taken for the first here."""


def of_header(text: str) -> str | None:
    """The SPDX identifier or expression in a file's first lines."""
    found = HEADER.search(text[:4096])
    return found[1].strip() if found else None


def of_text(text: str) -> str | None:
    """The SPDX identifier of a licence's text; null when it is none of the common ones."""
    words = " ".join(re.findall(r"[a-z0-9.]+", text.lower().replace("license, version", "license version")))
    words = re.sub(r"\.(?= |$)", "", words)
    return next((name for name, phrase in PHRASES if phrase in words), None)


def files_of(folder: Path) -> list[Path]:
    """Licence files in a folder."""
    try:
        return [one for one in sorted(folder.iterdir()) if NAMES.fullmatch(one.name) and one.is_file()]
    except OSError:
        return []


@lru_cache(maxsize=4096)
def of_folder(folder: Path, top: Path) -> str | None:
    """The licence that a file in `folder` or above it, up to `top`, grants."""
    found = files_of(folder)
    for path in found:
        try:
            with path.open("rb") as file:
                text = file.read(READ_BYTES).decode("utf-8", "replace")
        except OSError:
            continue
        if licence := of_header(text) or of_text(text):
            return licence
    if found or folder == top or folder == folder.parent:
        return None  # a licence that is not known is no reason to take the one above it
    return of_folder(folder.parent, top)

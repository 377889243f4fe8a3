"""Keeps documents by their licence."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Literal

import polars as pl

from llm.types import ConfigError

PRESETS = {
    "public_domain": ("CC0-1.0", "CC-PDDC", "PDDL-1.0", "Unlicense", "0BSD", "public-domain"),
    "permissive": (
        *("MIT", "MIT-0", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "BSD-3-Clause-Clear", "BSD-1-Clause"),
        *("ISC", "Zlib", "BSL-1.0", "X11", "NCSA", "PostgreSQL", "Python-2.0", "PSF-2.0", "UPL-1.0", "WTFPL"),
        *("BlueOak-1.0.0", "AFL-3.0", "CC-BY-[0-9].[0-9]", "ODC-By-1.0", "Artistic-2.0"),
        *("CC0-1.0", "CC-PDDC", "PDDL-1.0", "Unlicense", "0BSD", "public-domain"),
    ),
}
"""Lists by name: without any condition, and with none but naming the author (The Stack, Kocetkov et al. 2022,
and Common Pile, Kandpal et al. 2025, draw the line there; the latter lets share-alike pass as well)."""


class LicenceFilter:
    """Removes documents whose column `licence` is none of those allowed; `reason` names it, as written there.

    A licence is an SPDX expression (SPDX 2.3, annex D): of `A OR B` one must be allowed, of `A AND B` both,
    and `A WITH exception` counts as A. Case does not count, and common other spellings are understood:
    "Apache License 2.0", "CC BY 4.0", `https://creativecommons.org/licenses/by/4.0/`, "GPLv3", and `A/B`, as
    Cargo once wrote `A OR B`. "GPL-3.0" is GPL-3.0-only, and what is GPL-3.0-or-later may be taken as either.

    Args:
        allowed: SPDX identifiers, patterns (`CC-BY-*`, which allows CC-BY-NC-4.0 too) or the presets
            `permissive` and `public_domain`.
        denied: The same; what they name is removed even if it is allowed.
        unknown: What happens to documents without a licence.
    """

    def __init__(
        self,
        allowed: Sequence[str] = ("permissive",),
        denied: Sequence[str] = (),
        unknown: Literal["keep", "remove"] = "remove",
    ) -> None:
        self.check_arguments(allowed)
        self.allowed, self.denied, self.unknown = _patterns(allowed), _patterns(denied), unknown

    @staticmethod
    def check_arguments(allowed: Sequence[str]) -> None:
        """Something is allowed.

        Raises:
            ConfigError: nothing is.
        """
        if not allowed:
            raise ConfigError(
                "allowed", "[]", "no licence is allowed; name some, or a preset such as permissive"
            )

    def annotate(self, documents: pl.LazyFrame) -> pl.LazyFrame:
        """`reason` is ``licence_<what it is>`` or ``licence_unknown``."""
        frame = documents.collect()
        licences = frame["licence"].cast(pl.String).unique().drop_nulls().to_list()
        reasons = {one: self._reason(one) for one in licences}
        missing = None if self.unknown == "keep" else "licence_unknown"
        told = [missing if one is None else reasons[one] for one in frame["licence"]]
        return frame.lazy().with_columns(
            pl.Series("keep", [one is None for one in told], pl.Boolean),
            pl.Series("reason", told, pl.String),
            pl.lit(None, pl.Float64).alias("score"),
            pl.lit(None, pl.String).alias("match"),
        )

    def _reason(self, licence: str) -> str | None:
        if spdx(licence) in ("", "unknown", "noassertion", "none", "other"):
            return None if self.unknown == "keep" else "licence_unknown"
        return None if self.allows(licence) else f"licence_{licence.strip()}"

    def allows(self, licence: str) -> bool:
        """Whether an SPDX expression, or what is written for one, is allowed."""
        tokens = re.findall(r"\(|\)|[^\s()]+", spdx(licence))
        try:
            verdict, rest = self._either(tokens)
        except (IndexError, RecursionError):  # ends in the middle, or brackets without end
            return False
        return verdict and not rest

    def _either(self, tokens: list[str]) -> tuple[bool, list[str]]:
        verdict, rest = self._both(tokens)
        while rest and rest[0] == "or":
            other, rest = self._both(rest[1:])
            verdict = verdict or other
        return verdict, rest

    def _both(self, tokens: list[str]) -> tuple[bool, list[str]]:
        verdict, rest = self._one(tokens)
        while rest and rest[0] == "and":
            other, rest = self._one(rest[1:])
            verdict = verdict and other
        return verdict, rest

    def _one(self, tokens: list[str]) -> tuple[bool, list[str]]:
        if tokens[0] == "(":
            verdict, rest = self._either(tokens[1:])
            return verdict and rest[0] == ")", rest[1:]
        names, rest = _names(tokens[0]), tokens[1:]
        if rest and rest[0] == "with":
            rest = rest[2:]
        return _matches(names, self.allowed) and not _matches(names, self.denied), rest


def _patterns(names: Sequence[str]) -> tuple[str, ...]:
    found = [one for name in names for one in PRESETS.get(name, (name,))]
    return tuple(dict.fromkeys(one.lower() for one in found))


def _names(name: str) -> list[str]:
    """All by which a list may name a licence: SPDX has renamed GPL-3.0 and GPL-3.0+."""
    later = name.endswith(("+", "-or-later"))
    bare = name.removesuffix("+").removesuffix("-or-later").removesuffix("-only")
    return [bare, f"{bare}-only", *([f"{bare}-or-later", f"{bare}+"] if later else [])]


def _matches(names: Sequence[str], patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for name in names for pattern in patterns)


_CC = r"(by(?:[ -](?:nc|nd|sa))*)"
_SPELLINGS = (
    (rf"https?://(?:www\.)?creativecommons\.org/licen[cs]es/{_CC}/(\d\.\d)\S*", r"cc-\1-\2"),
    (r"https?://(?:www\.)?creativecommons\.org/publicdomain/zero/(\d\.\d)\S*", r"cc0-\1"),
    (r"https?://(?:www\.)?creativecommons\.org/publicdomain/mark\S*|public[ -]?domain", "public-domain"),
    (r"https?://(?:www\.)?apache\.org/licenses/license-2\.0\S*", "apache-2.0"),
    (r"https?://(?:www\.)?opensource\.org/licen[cs]es?/mit\S*|(?:the )?\bmit licen[cs]e", "mit"),
    (
        rf"(?:cc|creative commons)[ -]{_CC}[ -]v?(\d\.\d)(?: (?:international|unported|licen[cs]e))*",
        r"cc-\1-\2",
    ),
    (r"\bcc0(?: |-)?(?:v?1\.0)?(?: universal)?", "cc0-1.0"),
    (r"\bapache(?: software)?(?: licen[cs]e)?,?[ -]?(?:version )?v?2(?:\.0)?(?: licen[cs]e)?", "apache-2.0"),
    (r"\b2[ -]clause bsd|\bbsd[ -]2[ -]clause(?: \"?simplified\"?)?|\bsimplified bsd", "bsd-2-clause"),
    (
        r"\b(?:new |modified )?bsd(?: licen[cs]e|[ -]3[ -]clause(?: \"?new\"? or \"?revised\"?)?)"
        r"|\b3[ -]clause bsd",
        "bsd-3-clause",
    ),
    (r"\bboost software licen[cs]e,?(?: version)?[ -]v?1\.0", "bsl-1.0"),
    (r"\b(a|l)?gpl[ -]?v?(\d)(?:\.(\d))?(\+|-only|-or-later)?", None),
)


def spdx(licence: str) -> str:
    """The SPDX expression in small letters that is meant by a licence as people write it."""
    found = re.sub(r"\s+", " ", licence.strip().lower())
    for pattern, replacement in _SPELLINGS:
        found = re.sub(pattern, replacement if replacement is not None else _gnu, found)
    found = re.sub(r"cc-by[ a-z-]*", lambda match: match[0].replace(" ", "-"), found)
    found = re.sub(r"^the | licen[cs]e(?= \(| or | and | with |\)|/|$)", "", found)
    found = re.sub(r"(?<!\S)([\w.-]+) \(\1\)", r"\1", found)  # MIT (MIT)
    return found if "://" in found else re.sub(r" ?/ ?", " or ", found)


def _gnu(match: re.Match[str]) -> str:
    return f"{match[1] or ''}gpl-{match[2]}.{match[3] or '0'}{match[4] or ''}"

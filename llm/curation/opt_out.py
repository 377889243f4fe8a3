"""Removes documents whose owners do not want them in training data."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, Protocol
from urllib.parse import SplitResult, urlsplit

import polars as pl

from llm import files
from llm.inputs import digest, read_jsonl, read_text
from llm.types import ConfigError

AGENTS = ("GPTBot", "CCBot", "Google-Extended", "ClaudeBot", "anthropic-ai", "Bytespider")
"""Crawlers for training data that sites name most (Longpre et al. 2024, "Consent in Crisis")."""


class OptOut:
    """Removes what robots.txt forbids to crawlers for training, and what is on a list.

    A document's address is in its column `url`, or else in `provenance` where that is an address. `reason`
    says which rule it was, `match` the rule's own words.

    Args:
        robots: Saved robots.txt: a folder of `HOST/robots.txt` or `HOST.txt` (and of `HOST/ai.txt`, which has
            the same form), or JSON lines of `host` and `robots`. Read as RFC 9309 says: the longest rule
            counts, and paths may hold `*` and `$`.
        agents: A document goes if any of these crawlers is forbidden to fetch it; those that a file does not
            name follow its group `*`.
        lists: A file of lines `id:NAME`, `url:ADDRESS`, `domain:example.org` (with its subdomains) or
            `sha256:HEX` (of the text in UTF-8); without such a word in front, a domain or an address, its
            scheme written or not. `#` begins a comment.
        header_column: Column of a page's X-Robots-Tag, if the source has one: `noai` opts out.
    """

    def __init__(
        self,
        robots: str | None = None,
        agents: Sequence[str] = AGENTS,
        lists: str | None = None,
        header_column: str | None = None,
    ) -> None:
        self.robots, self.agents, self.lists = robots, tuple(agents), lists
        self.header_column = header_column

    def fingerprint(self) -> str:
        """A digest of the list and of the saved robots.txt, which hosts' they are included."""
        lists = [digest([self.lists], key="lists")] if self.lists else []
        place = Path(self.robots or "").expanduser()
        if self.robots and place.is_dir():
            found = [
                [str(file.relative_to(place)), files.sha256_file(file)]
                for file in sorted(place.rglob("*.txt"))
            ]
        else:
            found = [[digest([self.robots], key="robots")]] if self.robots else []
        return files.digest([lists, found])

    def prepare(self, say: Callable[[str], object]) -> None:
        """Reads the files once, so that a mistake in them shows before the corpus is read."""
        _read_lists.cache_clear()  # an earlier run in this process may have read what they were then
        _read_robots.cache_clear()
        n_listed = sum(map(len, _read_lists(self.lists))) if self.lists else 0
        n_hosts = len(_read_robots(self.robots)) if self.robots else 0
        say(f"opt_out: {n_listed:,} listed, robots.txt of {n_hosts:,} hosts")

    def annotate(self, documents: pl.LazyFrame) -> pl.LazyFrame:
        """`reason`: ``opt_out_id``, ``_url``, ``_domain``, ``_sha256``, ``_header`` or ``robots_<agent>``."""
        frame = documents.collect()
        listed = _read_lists(self.lists) if self.lists else Lists(set(), set(), set(), set())
        robots = _read_robots(self.robots) if self.robots else {}
        url = "url" if "url" in frame.columns else "provenance"
        columns = ["id", "text", url, *([self.header_column] if self.header_column in frame.columns else [])]
        rules: list[tuple[str | None, str | None]] = []
        for name, text, address, *header in frame.select(columns).iter_rows():
            rules.append(
                listed.rule(name, text, address)
                or _header_rule(header)
                or self._robots_rule(robots, address)
                or (None, None)
            )
        return frame.lazy().with_columns(
            pl.Series("keep", [reason is None for reason, _ in rules], pl.Boolean),
            pl.Series("reason", [reason for reason, _ in rules], pl.String),
            pl.lit(None, pl.Float64).alias("score"),
            pl.Series("match", [match for _, match in rules], pl.String),
        )

    def _robots_rule(
        self, robots: Mapping[str, Sequence[Robots]], address: str | None
    ) -> tuple[str, str] | None:
        host = host_of(address)
        for file in robots.get(host, ()) if host else ():
            for agent in self.agents:
                if not file.can_fetch(address or "", agent):
                    return f"robots_{agent}", host or ""
        return None


class Robots(Protocol):
    """What protego makes of a file."""

    def can_fetch(self, url: str, user_agent: str) -> bool:
        """Whether this crawler may."""
        ...


class Lists(NamedTuple):
    """A list of what is to go, by kind."""

    ids: set[str]
    urls: set[str]
    domains: set[str]
    digests: set[str]

    def rule(self, name: str, text: str | None, address: str | None) -> tuple[str, str] | None:
        """Reason and entry that concern a document."""
        if name in self.ids:
            return "opt_out_id", name
        if self.urls and (url := normal_url(address)) in self.urls:
            return "opt_out_url", url or ""
        labels = (host_of(address) or "").split(".") if self.domains else []
        for start in range(len(labels)):
            if (domain := ".".join(labels[start:])) in self.domains:
                return "opt_out_domain", domain
        if self.digests and (digest := hashlib.sha256((text or "").encode()).hexdigest()) in self.digests:
            return "opt_out_sha256", digest
        return None


def host_of(address: str | None) -> str | None:
    """The host of an address in small letters, None where it is none."""
    if not address or "//" not in address:
        return None
    try:
        return urlsplit(address.strip()).hostname
    except ValueError:
        return None


def normal_url(address: str | None) -> str | None:
    """An address without scheme, `www.`, fragment and closing slash, its host in small letters."""
    host = host_of(address)
    if host is None or address is None:
        return None
    parts = urlsplit(address.strip())
    port = f":{_port(parts)}" if _port(parts) else ""
    query = f"?{parts.query}" if parts.query else ""
    return host.removeprefix("www.") + port + parts.path.rstrip("/") + query


def _port(parts: SplitResult) -> int | None:
    try:
        return parts.port if parts.port not in (80, 443) else None
    except ValueError:
        return None


def _header_rule(header: Sequence[str | None]) -> tuple[str, str] | None:
    found = re.search(r"(?i)\bnoai\b", header[0]) if header and header[0] else None
    return ("opt_out_header", found[0].lower()) if found else None


@lru_cache(maxsize=2)
def _read_lists(path: str) -> Lists:
    """Raises ConfigError for a line of unknown kind; key `lists`."""
    found = Lists(set(), set(), set(), set())
    for number, raw in enumerate(read_text(path, key="lists").splitlines(), start=1):
        line = re.sub(r"(^|\s)#.*", "", raw).strip()
        kind, _, value = line.partition(":")
        value = value.strip()
        if not line:
            continue
        if kind == "id":
            found.ids.add(value)
        elif kind == "sha256" and re.fullmatch(r"[0-9a-fA-F]{64}", value):
            found.digests.add(value.lower())
        elif kind == "domain" and (domain := _domain(value, sure=True)):
            found.domains.add(domain)
        elif kind == "url" and (address := _address(value, sure=True)):
            found.urls.add(address)
        elif domain := _domain(line, sure=False):
            found.domains.add(domain)
        elif kind != "domain" and (address := _address(line, sure=False)):
            found.urls.add(address)
        else:
            mend = f"line {number}: {line[:60]!r} is no id:, url:, domain: or sha256:"
            raise ConfigError("lists", path, mend)
    return found


_DOMAIN = r"[\w-]+(\.[\w-]+)*"


_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)


def _domain(written: str, *, sure: bool) -> str | None:
    """``*.Example.org/`` as ``example.org``; None for what is more. Unless `sure`, it needs a dot."""
    scheme = _SCHEME.match(written) if sure else None
    host = written[scheme.end() if scheme else 0 :].lower().removesuffix("/").removeprefix("*.").strip(".")
    return host if re.fullmatch(_DOMAIN, host) and (sure or "." in host) else None


def _address(written: str, *, sure: bool) -> str | None:
    """As `normal_url`, the scheme left out or not; what is not `sure` to be one needs it, or a domain."""
    if _SCHEME.match(written):
        return normal_url(written)
    address = "//" + written.removeprefix("//")
    return normal_url(address) if sure or _domain(host_of(address) or "", sure=False) else None


@lru_cache(maxsize=2)
def _read_robots(path: str) -> dict[str, list[Robots]]:
    """Parsed files by host. Raises ConfigError when there is none, or protego is missing; key `robots`."""
    try:
        from protego import Protego
    except ImportError:
        raise ConfigError("robots", path, "needs the package protego: pip install -e '.[curation]'") from None
    found: dict[str, list[Robots]] = {}
    for host, text in _robots_texts(path):
        found.setdefault(host.lower(), []).append(Protego.parse(text))
    if not found:
        raise ConfigError("robots", path, "holds no HOST/robots.txt, HOST.txt or HOST/ai.txt")
    return found


def _robots_texts(path: str) -> Iterator[tuple[str, str]]:
    here = Path(path).expanduser()
    if not here.is_dir():
        for place, row in read_jsonl([path], key="robots"):
            if not isinstance(row.get("host"), str) or not isinstance(row.get("robots"), str):
                raise place.wrong("needs the texts `host` and `robots`")
            yield row["host"], row["robots"]
        return
    for file in sorted(here.rglob("*.txt")):
        host = file.parent.name if file.name in ("robots.txt", "ai.txt") else file.stem
        # a robots.txt may be empty or in any encoding: it then forbids nothing, or what can be read
        yield host, file.read_bytes().decode("utf-8-sig", errors="replace")

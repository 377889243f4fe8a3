"""Documents made from real prose and the standard library's sources, as many as a benchmark wants."""

from __future__ import annotations

import gzip
import random
import re
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path

from llm.types import ConfigError

SENTENCE = re.compile(r"(?<=[.!?])\s+")


def sentences(path: str) -> list[str]:
    """Sentences of all text files in a folder."""
    found: list[str] = []
    for file in sorted(Path(path).expanduser().glob("*.txt*")):
        raw = file.read_bytes()
        text = (gzip.decompress(raw) if file.suffix == ".gz" else raw).decode("utf-8", "replace")
        found += [" ".join(one.split()) for one in SENTENCE.split(text)]
    found = [one for one in found if 20 <= len(one) <= 600]
    if len(found) < 1000:
        raise ConfigError(
            "path", path, f"{len(found)} sentences in its .txt and .txt.gz files; give it more text"
        )
    return found


def blocks() -> list[str]:
    """Pieces of the standard library's sources, cut at blank lines."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    found: list[str] = []
    for file in sorted(folder.glob("*.py")):
        found += file.read_text(encoding="utf-8", errors="replace").split("\n\n")
    return [one for one in found if 40 <= len(one) <= 1200]


def documents(pools: dict[str, list[str]], rng: random.Random) -> Iterator[tuple[str, str]]:
    """Documents of a domain each, without end."""
    words = [word for one in rng.sample(pools["prose"], 400) for word in one.split()]
    earlier: list[tuple[str, str]] = []
    while True:
        chance = rng.random()
        if chance < 0.08 and earlier:
            domain, text = rng.choice(earlier)
            if chance >= 0.03:
                text = _edited(text, words, rng, 0.01)
        elif chance < 0.10:
            domain, text = "prose", " ".join(rng.choices(words, k=20))
        else:
            domain = "code" if rng.random() < 0.15 else "prose"
            text = _edited(_whole(pools[domain], domain, rng), words, rng, 1 / 12)
        if len(earlier) < 2000:
            earlier.append((domain, text))
        else:
            earlier[rng.randrange(2000)] = (domain, text)
        yield domain, text


def _whole(pool: Sequence[str], domain: str, rng: random.Random) -> str:
    """Some 2,000 characters of random pieces, none of them cut; five sentences make a paragraph."""
    pieces: list[str] = []
    length = 0
    while length < 2000:
        pieces.append(rng.choice(pool))
        length += len(pieces[-1]) + 1
    if domain == "code":
        return "\n\n".join(pieces)
    return "\n\n".join(" ".join(pieces[start : start + 5]) for start in range(0, len(pieces), 5))


def _edited(text: str, words: Sequence[str], rng: random.Random, share: float) -> str:
    """The text with about this share of its words replaced by others."""
    parts = text.split(" ")
    n = max(1, int(share * len(parts)))
    for place, word in zip(rng.choices(range(len(parts)), k=n), rng.choices(words, k=n), strict=True):
        parts[place] = word
    return " ".join(parts)

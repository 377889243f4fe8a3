"""What a reader without understanding scores: the questions must not be answerable by matching words.

Every baseline rates an answer given its question; the pair or exam question is won by the higher rate,
and a tie counts as the chance it is. A good task keeps all of them near chance:

- `words`: shared words, weighted by rarity. Names are cut at underscores, capitals and digits
  (`getLine_no2` is get, line, no), endings are taken off.
- `trigrams`: shared letter triples inside words, weighted by rarity (norm meets normalisation).
- `prefixes`: how many words share their first four letters, unweighted.
- `length`: the longer answer. `first_word`: how often an answer that begins so is right in training.
- `learned`: logistic regression on (question word, answer word) products and shared words.
"""

from __future__ import annotations

import math
import re
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache

import numpy as np

PIECE = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
ENDINGS = (
    "ations",
    "ation",
    "ings",
    "ing",
    "ers",
    "er",
    "ied",
    "ies",
    "ed",
    "es",
    "ions",
    "ion",
    "e",
    "s",
    "y",
)
STOP = frozenset(
    ("what", "does", "do", "is", "the", "a", "an", "of", "for", "in", "this", "to", "and", "or", "it")
)

Rate = Callable[[str, str], float]
"""(question, answer) -> how well they fit."""


@lru_cache(maxsize=200_000)
def pieces(text: str) -> tuple[str, ...]:
    """Distinct words of a text in order, names cut apart, endings taken off, question words left out."""
    found: dict[str, None] = {}
    for word in PIECE.findall(text):
        lowered = word.lower()
        if lowered not in STOP and len(lowered) > 1:
            found[_stem(lowered)] = None
    return tuple(found)


@lru_cache(maxsize=200_000)
def trigrams(text: str) -> frozenset[str]:
    """Letter triples inside the words of a text."""
    words = [word.lower() for word in PIECE.findall(text)]
    return frozenset(w[i : i + 3] for w in words if w not in STOP for i in range(max(1, len(w) - 2)))


def _stem(word: str) -> str:
    for ending in ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)]
    return word


class Overlap:
    """Cosine of the parts of question and answer, each part weighted by its rarity among the answers."""

    def __init__(self, cut: Callable[[str], Iterable[str]], answers: Sequence[str]) -> None:
        counts = Counter(part for answer in answers for part in set(cut(answer)))
        self._cut = cut
        self._squares = {part: math.log((1 + len(answers)) / (1 + n)) ** 2 for part, n in counts.items()}
        self._unseen = math.log(1 + len(answers)) ** 2
        self._known: dict[str, tuple[frozenset[str], float]] = {}

    def __call__(self, question: str, answer: str) -> float:
        """Between 0 (nothing shared) and 1."""
        (asked, norm), (given, other) = self._parts(question), self._parts(answer)
        shared = asked & given
        return self._sum(shared) / math.sqrt(norm * other) if shared and norm * other else 0.0

    def _parts(self, text: str) -> tuple[frozenset[str], float]:
        if text not in self._known:
            parts = frozenset(self._cut(text))
            self._known[text] = parts, self._sum(parts)
        return self._known[text]

    def _sum(self, parts: Iterable[str]) -> float:
        # fsum: the order of a set differs between processes, and a plain sum's last bit with it
        return math.fsum(self._squares.get(part, self._unseen) for part in parts)


def shared_prefixes(question: str, answer: str) -> float:
    """How many beginnings of words, four letters each, both hold."""
    return float(len(prefixes(question) & prefixes(answer)))


@lru_cache(maxsize=200_000)
def prefixes(text: str) -> frozenset[str]:
    """First four letters or digits of each word; names are cut at underscores and dots only."""
    return frozenset(word[:4] for word in re.findall(r"[a-z0-9]+", text.lower()))


class FirstWord:
    """How often, in training pairs, an answer beginning with this word was the chosen one."""

    def __init__(self, pairs: Sequence[Mapping[str, str]]) -> None:
        won: defaultdict[str, list[float]] = defaultdict(lambda: [1.0, 2.0])  # one win in two, seen before
        for pair in pairs:
            for answer, win in ((pair["chosen"], 1.0), (pair["rejected"], 0.0)):
                tally = won[_first(answer)]
                tally[0] += win
                tally[1] += 1
        self._rate = {word: wins / seen for word, (wins, seen) in won.items()}

    def __call__(self, _question: str, answer: str) -> float:
        """The rate of the answer's first word; the question is not read."""
        return self._rate.get(_first(answer), 0.5)


def _first(answer: str) -> str:
    return answer.split(maxsplit=1)[0].lower() if answer else ""


class Learned:
    """Logistic regression on hashed (question word, answer word) products, trained on the training pairs."""

    def __init__(
        self, pairs: Sequence[Mapping[str, str]], *, seed: int, epochs: int = 4, bits: int = 18
    ) -> None:
        self._size = 1 << bits
        self._weights = np.zeros(self._size)
        squares = np.full(self._size, 1e-6)
        rows = [
            (self._parts(p["question"], p["chosen"]), self._parts(p["question"], p["rejected"]))
            for p in pairs
        ]
        generator = np.random.default_rng(seed)
        for _ in range(epochs):
            for index in generator.permutation(len(rows)):
                won, lost = rows[index]
                margin = self._weights[won].sum() / math.sqrt(len(won) or 1)
                margin -= self._weights[lost].sum() / math.sqrt(len(lost) or 1)
                slope = 1.0 / (1.0 + math.exp(min(margin, 30.0)))
                for parts, sign in ((won, 1.0), (lost, -1.0)):
                    if len(parts):
                        step = sign * slope / math.sqrt(len(parts))
                        squares[parts] += step * step
                        self._weights[parts] += 0.1 * step / np.sqrt(squares[parts])  # Adagrad

    def __call__(self, question: str, answer: str) -> float:
        """The logit of this answer being the right one."""
        parts = self._parts(question, answer)
        return float(self._weights[parts].sum() / math.sqrt(len(parts) or 1))

    def _parts(self, question: str, answer: str) -> np.ndarray:
        asked, given = pieces(question), pieces(answer)
        texts = [f"{q}|{a}" for q in asked for a in given] + [f"={q}" for q in asked if q in given]
        if set(asked) & set(given):
            texts.append("shared")
        return np.array(sorted({zlib.crc32(text.encode()) % self._size for text in texts}), dtype=np.int64)


def pairs_accuracy(rate: Rate, pairs: Sequence[Mapping[str, str]]) -> float:
    """Share of pairs (question, chosen, rejected) whose chosen answer is rated higher; ties count half."""
    if not pairs:
        return float("nan")
    won = 0.0
    for pair in pairs:
        chosen, rejected = rate(pair["question"], pair["chosen"]), rate(pair["question"], pair["rejected"])
        won += 1.0 if chosen > rejected else 0.5 if chosen == rejected else 0.0
    return won / len(pairs)


def exam_accuracy(rate: Rate, exam: Sequence[tuple[str, Sequence[str], int]]) -> float:
    """Share of (question, choices, answer) whose answer is rated highest; a tie of k counts 1/k."""
    if not exam:
        return float("nan")
    won = 0.0
    for question, choices, answer in exam:
        rates = [rate(question, choice) for choice in choices]
        best = max(rates)
        if rates[answer] == best:
            won += 1.0 / rates.count(best)
    return won / len(exam)

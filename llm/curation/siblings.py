"""Hard choices between siblings: preference pairs and exam questions that word matching cannot answer.

A name often repeats words of its own description, and then counting shared words would win. Two devices
keep the task about meaning:

- Closed sets. The members of a set (two for a pair, four for an exam) are all asked about with the same
  answers, so nothing in an answer alone (its length, first word, style) says anything: chance exactly.
- Balance. A set is taken when bag-of-words baselines gain nothing on it; sets they would solve are let in
  only as far as their overall accuracy stays below a ceiling.

What is left must still be learnable by a small model in minutes, so every set mixes kinds that are described
in different forms: a class by a noun ("A queue that ..."), a predicate by a condition ("Return True if ..."),
any other function by an action ("Close the ..."). A name shows its kind by capitals and word order, which a
bag of words does not keep.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations

from llm.curation.base import DocumentedObject, order_key
from llm.curation.baseline import Rate
from llm.curation.near_duplicates import jaccard, shingles

WINDOW = 14
"""Siblings are compared with this many neighbours in the order of description length."""

PREDICATE = re.compile(r"_*(is|has|can|should|are|supports?|check)(_|[A-Z]|$)|_*is[a-z]+$")
"""Names of functions that say whether something holds, such as ``is_integer``."""

Set = tuple[DocumentedObject, ...]


@dataclass(frozen=True, slots=True)
class Rule:
    """How sets are chosen. ceiling: highest accuracy of any baseline over all sets."""

    size: int
    ceiling: float
    max_uses: int
    max_length_ratio: float
    limit: int
    seed: int


def closed_sets(objects: Sequence[DocumentedObject], rule: Rule, rates: Sequence[Rate]) -> list[Set]:
    """Sets of siblings whose descriptions are alike in length and different in content.

    Args:
        objects: One side of the split; each has a summary.
        rule: Size of a set and its bounds.
        rates: Baselines that must gain no more than the ceiling.

    Returns:
        Sets in a seeded order; `size` questions come from each.
    """
    known: Known = [{} for _ in rates]
    scored = [(members, _credits(members, rates, known)) for members in _candidates(objects, rule)]
    scored.sort(key=lambda entry: order_key(rule.seed, *(one.name for one in entry[0])))
    uses: Counter[str] = Counter()
    chosen: dict[tuple[str, ...], Set] = {}
    totals = [0.0] * len(rates)
    rounds = [(easy, allowed) for easy in (False, True) for allowed in range(1, rule.max_uses + 1)]
    for easy, allowed in rounds:  # in each, every object is used once before any of them twice
        for members, won in scored:
            if (len(chosen) + 1) * rule.size > rule.limit:
                break
            names = tuple(one.name for one in members)
            if (
                (max(won) > 1.0) is not easy
                or names in chosen
                or any(uses[name] >= allowed for name in names)
            ):
                continue
            after = [total + gain for total, gain in zip(totals, won, strict=True)]
            # sets on which no baseline gains make room for easy ones under the ceiling
            if easy and max(after) > rule.ceiling * rule.size * (len(chosen) + 1):
                continue
            totals = after
            uses.update(names)
            chosen[names] = members
    return _ordered(list(chosen.values()), rule.seed)


def _ordered(sets: Sequence[Set], seed: int) -> list[Set]:
    return sorted(sets, key=lambda members: order_key(seed + 1, *(one.name for one in members)))


def question_for(one: DocumentedObject) -> str:
    """The one phrasing used where answers are compared; it is the most frequent one in the conversations."""
    return f"What does `{one.name}` do?"


Known = list[dict[tuple[str, str], float]]
"""Rates already asked for: the same two siblings meet in many sets."""


def _credits(members: Set, rates: Sequence[Rate], known: Known) -> list[float]:
    """Questions of this set each baseline wins; 1.0 is chance, whatever the size."""
    found = []
    for rate, seen in zip(rates, known, strict=True):
        won = 0.0
        for place, one in enumerate(members):
            scores = []
            for other in members:
                key = one.name, other.name
                if key not in seen:
                    seen[key] = rate(question_for(one), other.summary)
                scores.append(seen[key])
            best = max(scores)
            own = scores[place]
            won += 1.0 / scores.count(best) if own == best else 0.0
        found.append(won)
    return found


def _candidates(objects: Sequence[DocumentedObject], rule: Rule) -> Iterator[Set]:
    families: defaultdict[str, list[DocumentedObject]] = defaultdict(list)
    for one in objects:
        families[one.parent].append(one)
    for parent in sorted(families):
        family = sorted(families[parent], key=lambda one: (len(one.summary), one.name))
        for start, first in enumerate(family):
            alike = [o for o in family[start + 1 :] if _alike(first, o, rule.max_length_ratio)]
            if rule.size == 2:
                other_kind = [o for o in alike if _kind(o) != _kind(first)][:WINDOW]
                yield from ((first, other) for other in other_kind if _distinct(first, other))
            else:
                alike = alike[: 2 * WINDOW]
                alike.sort(key=lambda other: order_key(rule.seed, first.name, other.name))
                for others in combinations(alike[:8], rule.size - 1):
                    members = (first, *others)
                    kinds = {_kind(one) for one in members}
                    if len(kinds) > 1 and all(_distinct(a, b) for a, b in combinations(members, 2)):
                        yield members


def _kind(one: DocumentedObject) -> str:
    if one.kind == "class":
        return "class"
    return "predicate" if PREDICATE.match(one.leaf) else "action"


def _alike(first: DocumentedObject, other: DocumentedObject, ratio: float) -> bool:
    return len(other.summary) <= ratio * len(first.summary) + 5


@lru_cache(maxsize=50_000)
def _words(text: str) -> frozenset[str]:
    return shingles(text, 1)


def _distinct(first: DocumentedObject, other: DocumentedObject) -> bool:
    """True when the other's description would be wrong here: different words, different documentation."""
    return first.doc != other.doc and jaccard(_words(first.summary), _words(other.summary)) < 0.6

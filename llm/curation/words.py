"""Words of many texts at once, found by the classes of their characters.

What Gopher's, C4's and FineWeb's rules call a word is what their tokenizers made of a text, and a tokenizer
costs a hundred times more than all the rules. Here a word is defined by the characters alone, close to how
spaCy's English tokenizer (datatrove's) cuts, so that numpy finds those of a whole shard in a few passes:

- Spaces separate. Letters, digits and marks that stand together are a word.
- Punctuation before and behind it is cut off, a token for each character; a run of dots is one.
- Inside, a hyphen, dash, slash or the like between letters is cut out (`well-known` is three tokens); what
  stands between digits stays (`10,000`, `3.14`, `12:30`), and so do initials (`U.S.`) and addresses.
- A contraction is cut before its apostrophe: `don't` and `it's` are two.
"""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Flags = NDArray[np.bool_]
Codes = NDArray[np.uint32]
Classes = NDArray[np.uint8]
Places = NDArray[np.intp]

SPACE, LETTER, CAPITAL, DIGIT, MARK, PUNCTUATION, ATTACHED, SYMBOL = range(8)
"""Classes of characters. MARK: what belongs to the letter before it. ATTACHED: punctuation that stays with
its word. SYMBOL: pictures, arrows, currencies; each stands alone."""

WORDLIKE = MARK
"""The classes above SPACE up to this one make words."""

BLOCK_CHARS = 1 << 18
"""Characters that are looked at together: arrays of this size stay in the processor's cache."""

_ATTACHED = frozenset("-/@^~|\\+")
_DASHES = "-–—~"
_APOSTROPHES = "'\N{RIGHT SINGLE QUOTATION MARK}"
_ABBREVIATIONS = (
    "Mr Mrs Ms Dr Prof St Mt Jr Sr Inc Ltd Co Corp Bros vs Rev Gen Gov Rep Sen Adm Messrs Ph "
    "Jan Feb Mar Apr Jun Jul Aug Sep Sept Oct Nov Dec"
)
_UNITS = "km m cm dm mm nm ha yd in ft kg g mg t lb oz kmh mph hPa Pa mb MB kb KB gb GB tb TB T G M K am pm"


@dataclass(frozen=True)
class Words:
    """The tokens of some texts: those with a letter or a digit are words, the others punctuation.

    texts: how many. codes, classes: of every character of the joined texts. starts, ends: of each token.
    first: number of each text's first token, and behind the last one that of all. offsets: as `first`, of
    characters (a line break joins the texts).
    """

    codes: Codes
    classes: Classes
    starts: Places
    ends: Places
    first: Places
    offsets: Places

    def per_text(self, amounts: Flags | Places) -> NDArray[np.int64]:
        """The sum over the tokens of each text."""
        sums = np.concatenate(([0], np.cumsum(amounts, dtype=np.int64)))
        return np.asarray(sums[self.first[1:]] - sums[self.first[:-1]])

    def holding(self, *wanted: int) -> Flags:
        """Whether each token has a character of one of these classes."""
        table = np.zeros(8, np.bool_)
        table[list(wanted)] = True
        found = table[self.classes[self.starts]]
        # most tokens show by their first character; only the others are looked through
        left = np.flatnonzero(~found & (self.ends - self.starts > 1))
        if left.size:
            sizes = (self.ends - self.starts)[left]
            begins = np.cumsum(sizes) - sizes
            places = np.arange(sizes.sum()) + np.repeat(self.starts[left] - begins, sizes)
            found[left] = np.logical_or.reduceat(table[self.classes[places]], begins)
        return found


def blocks(texts: Sequence[str], n_chars: int = BLOCK_CHARS) -> Iterator[Words]:
    """The words of the texts, some texts at a time, in their order."""
    taken: list[str] = []
    size = 0
    for text in texts:
        if taken and size + len(text) > n_chars:
            yield find(taken)
            taken, size = [], 0
        taken.append(text)
        size += len(text)
    if taken:
        yield find(taken)


def find(texts: Sequence[str]) -> Words:
    """The words of all texts together."""
    joined = "\n".join(["", *texts, ""])
    codes = np.frombuffer(joined.encode("utf-32-le"), np.uint32)
    classes = _classes().take(codes, mode="clip")
    offsets = np.cumsum([1, *(len(text) + 1 for text in texts)])
    inked = classes != SPACE
    begins = inked.copy()
    begins[1:] &= ~inked[:-1]
    places = np.flatnonzero(classes >= PUNCTUATION)
    if places.size:
        before, behind = _cuts(codes, classes, places)
        begins[places[before]] = True
        begins[places[behind] + 1] = True
        begins &= inked
    begins[_unit_starts(codes, classes)] = True
    ends = inked
    ends[:-1] &= begins[1:] | ~inked[1:]
    starts = np.flatnonzero(begins)
    return Words(codes, classes, starts, np.flatnonzero(ends) + 1, np.searchsorted(starts, offsets), offsets)


def _cuts(codes: Codes, classes: Classes, places: Places) -> tuple[Flags, Flags]:
    """Whether a token begins at each character that is no word's, and whether one begins behind it."""
    wordlike = (classes > SPACE) & (classes <= WORDLIKE)
    opens = np.append(True, np.diff(places) != 1)
    closes = np.append(opens[1:], True)
    run = np.cumsum(opens) - 1
    first, last = places[opens], places[closes]
    inside = (wordlike[first - 1] & wordlike[last + 1])[run]
    single = (opens & closes) & inside
    code, left, right = codes[places], classes[places - 1], classes[places + 1]

    dots = (code == ord(".")) & ((codes[places - 1] == ord(".")) | (codes[places + 1] == ord(".")))
    cut = (classes[places] == SYMBOL) | dots | (code == ord("…"))
    cut |= (classes[places] == PUNCTUATION) & ~inside
    cut &= ~_ends_abbreviation(codes, classes, places)

    letters = _is_letter(left) & _is_letter(right)
    dash = _among(code, _DASHES)
    to_letter = single & _is_letter(right)
    cut |= to_letter & _among(code, _DASHES + ":<>=/")
    cut |= single & (left == DIGIT) & (right == DIGIT) & _among(code, "+-*^")
    cut |= single & letters & (code == ord(","))
    cut |= single & (code == ord(".")) & (left == LETTER) & (right == CAPITAL)
    # two or three hyphens between letters
    pure = np.logical_and.reduceat(dash, np.flatnonzero(opens))
    outer = _is_letter(classes[first - 1]) & _is_letter(classes[last + 1])
    cut |= (pure & outer)[run]

    # neighbours that are one token: dots, hyphens
    same = np.append(False, (code[1:] == code[:-1]) & ~opens[1:] & (dots | dash)[1:])
    clitic = single & letters & _among(code, _APOSTROPHES) & _is_clitic(codes, classes, places)
    dollars = (code == ord("$")) & (left == CAPITAL)  # US$
    same |= dollars
    cut |= dollars
    return (cut & ~same) | clitic, cut & ~np.append(same[1:], False)


def _ends_abbreviation(codes: Codes, classes: Classes, places: Places) -> Flags:
    """Full stops that are part of their word: of initials (`J.`), of `a.m.` and of known abbreviations."""
    found = np.zeros(places.size, np.bool_)
    stops = np.flatnonzero((codes[places] == ord(".")) & _is_letter(classes[places - 1]))
    before, second = classes[places[stops] - 1], places[stops] - 2
    initial = (before == CAPITAL) & (classes[second] != CAPITAL)
    known = _known(codes, places[stops], -1, _ABBREVIATIONS)
    found[stops] = initial | (codes[second] == ord(".")) | known
    return found


def _unit_starts(codes: Codes, classes: Classes) -> Places:
    """Where a unit begins that is written close behind its number, as in `30mph`."""
    digits = np.flatnonzero(classes[:-1] == DIGIT)
    places = digits[_is_letter(classes[digits + 1])]
    return places[_known(codes, places, 1, _UNITS)] + 1


def _known(codes: Codes, places: Places, step: int, words: str) -> Flags:
    """Whether the letters next to each place, before it (`step` -1) or behind it (1), are one of `words`."""
    keys, length = _keys(words, step)
    near = places[:, None] + step * np.arange(1, length + 2)  # one more than a word: there it has to end
    letters = codes[np.minimum(np.maximum(near, 0), codes.size - 1)]
    going = (letters | np.uint32(32)) - np.uint32(ord("a")) < 26
    spelled = np.zeros((places.size, 8), np.uint8)  # up to eight letters of ASCII are one number
    spelled[:, : length + 1] = letters * np.logical_and.accumulate(going, axis=1)
    numbers = spelled.view("<u8").ravel()
    found: Flags = keys[np.searchsorted(keys, numbers).clip(max=keys.size - 1)] == numbers
    return found


@lru_cache(maxsize=2)
def _keys(words: str, step: int) -> tuple[NDArray[np.uint64], int]:
    """The words as numbers, from the letter on that is met first, and how long the longest is."""
    spelled = (int.from_bytes(word[::step].encode(), "little") for word in words.split())
    return np.array(sorted(spelled), np.uint64), max(map(len, words.split()))


def _is_letter(classes: Classes) -> Flags:
    found: Flags = (classes == LETTER) | (classes == CAPITAL)
    return found


def _among(codes: Codes, characters: str) -> Flags:
    found: Flags = codes == ord(characters[0])
    for character in characters[1:]:
        found |= codes == ord(character)
    return found


def _is_clitic(codes: Codes, classes: Classes, places: Places) -> Flags:
    """Whether 's, 't, 'd, 'm, 're, 've or 'll follows, and then the word's end."""
    top = classes.size - 1
    one, two, three = (np.minimum(places + n, top) for n in (1, 2, 3))
    ended = [(classes[place] == SPACE) | (classes[place] > WORDLIKE) for place in (two, three)]
    first, second = codes[one] | np.uint32(32), codes[two] | np.uint32(32)  # lower case, if ASCII
    double = (_among(first, "rv") & (second == ord("e"))) | ((first == ord("l")) & (second == ord("l")))
    return np.asarray((_among(first, "stdm") & ended[0]) | (double & ended[1]))


@lru_cache(maxsize=1)
def _classes() -> Classes:
    """The class of every code point, by its category in the Unicode database."""
    by_category = {"L": LETTER, "M": MARK, "N": DIGIT, "P": PUNCTUATION, "S": SYMBOL, "Z": SPACE, "C": MARK}
    table = np.full(sys.maxunicode + 1, MARK, np.uint8)
    for code in (*range(0x33480), *range(0xE0000, 0xE0200)):  # no code point elsewhere is assigned
        category, character = unicodedata.category(chr(code)), chr(code)
        kind = CAPITAL if category == "Lu" else by_category[category[0]]
        if character.isspace():
            kind = SPACE
        elif category == "Cc" or (code < 128 and kind == SYMBOL):
            kind = PUNCTUATION
        table[code] = ATTACHED if character in _ATTACHED else kind
    return table

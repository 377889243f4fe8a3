"""Finds where documents repeat texts of a given set, word for word or nearly.

Three stages, each leaving little to the next. First, pairs of words (triples, for long texts) that few of
the texts share point from a place in a document to a text. Second, where enough of what points to one text
gathers in a window, the words of both are counted. Third, what is left is aligned word by word. The weights
are of the same kind as in OLMo's decon (inverse document frequency among the texts sought); the alignment
is Smith and Waterman 1981, which an inserted, a deleted and a replaced word cost about one word each.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from llm.curation.numbered_words import Ints, Lookup, Numbered, Vocabulary, words

Floats = NDArray[np.float64]

LEAST_SCORE = 0.5
"""Matches below this are not told of."""

_BATCH_BYTES = 4_000_000  # of text searched together, so that the arrays stay in the cache
_LONGEST = 512  # words of a form that are aligned
_SHORT = 16  # words; in shorter forms one edit leaves too few triples
# where the words of an n-gram stand in the texts sought, and where in documents: there the letter of a choice
# or an inserted word may come between
_PAIRS = ((0, 1), (0, 2)), ((0, 1), (0, 2), (0, 3))
_TRIPLES = ((0, 1, 2),), ((0, 1, 2),)
_Shapes = tuple[tuple[int, ...], ...]
_SHARED = 30  # texts; what more of them share points to none ...
_SHARED_AT_MOST = 1000  # ... unless a text has little else
_LEAST_RARITY = 4.0  # nats; "of the" points nowhere even if one text alone has it
_LEAST_STRENGTH = 0.2  # of all that points to a text, within a window
_GAP = 0.2  # what a word between two matched ones costs, in words
_TOLD = 5  # matches of one document


class Match(NamedTuple):
    """A text of the set found in a document.

    score: share of the form's words that stand in the document in order, by rarity and number alike.
    verbatim: `n` words in a row are equal. form: which of all forms. begin, end: words of the document.
    """

    score: float
    verbatim: bool
    form: int
    begin: int
    end: int


class _Pointers:
    """N-grams with the texts they point to."""

    def __init__(
        self,
        forms: Numbered,
        owner: Ints,
        chosen: NDArray[np.bool_],
        here: _Shapes,
        there: _Shapes,
    ) -> None:
        self.n, self.shapes, self.owner = len(here[0]), there, owner
        self.base = int(forms.ids.max(initial=0)) + 1
        found = [forms.grams(shape, self.base) for shape in here]
        form = forms.texts()[np.concatenate([places for places, _ in found])]
        mine = chosen[owner[form]]
        self.form, self.gram = form[mine], np.concatenate([codes for _, codes in found])[mine]
        self.codes, self.text = _pairs(self.gram, owner[self.form])
        _, counts = np.unique(self.codes, return_counts=True)
        self.n_sharing = np.repeat(counts, counts)

    def rarities(self, rarity: Floats) -> Floats:
        """Summed rarity of the words, of every n-gram and text."""
        rest, total = self.codes.copy(), np.zeros(len(self.codes))
        for _ in range(self.n):
            total += rarity[rest % self.base]
            rest //= self.base
        return total

    def settle(self, kept: NDArray[np.bool_], n_texts: int) -> Floats:
        """Keeps only these; returns the weight of what points to each form."""
        self.codes, self.text = self.codes[kept], self.text[kept]
        # Rounded, so that sums of them are exact and do not depend on what else was summed before.
        weight = np.round((1 + np.log((n_texts + 1) / self.n_sharing[kept])) * 2.0**16) / 2.0**16
        codes, self.first, self.count = np.unique(self.codes, return_index=True, return_counts=True)
        self.weight, self.lookup = weight, Lookup(codes)
        which, at = self.lookup.find(self.gram)
        pairs = at * n_texts + self.owner[self.form[which]]
        known = np.repeat(np.arange(len(codes)), self.count) * n_texts + self.text
        there, entry = Lookup(known).find(pairs)
        del self.codes, self.n_sharing, self.gram
        return np.bincount(self.form[which[there]], weight[entry], len(self.owner)).astype(np.float64)

    def find(self, documents: Numbered) -> Iterator[tuple[Ints, Ints, Floats]]:
        """Place, text and weight of everything in the documents that points to a text."""
        for shape in self.shapes:
            places, codes = documents.grams(shape, self.base)
            which, at = self.lookup.find(codes)
            count = self.count[at]
            starts = np.cumsum(count) - count
            entry = np.arange(count.sum()) - np.repeat(starts - self.first[at], count)
            yield np.repeat(places[which], count), self.text[entry], self.weight[entry]


class OverlapIndex:
    """Texts by their n-grams; a text may take several forms.

    Args:
        forms: Forms of each text; one without any is never found.
        n: Words in a row that count as verbatim.
    """

    def __init__(self, forms: Sequence[Sequence[str]], n: int) -> None:
        self.owner = np.repeat(np.arange(len(forms)), [len(one) for one in forms]).astype(np.int64)
        lists = words(pl.Series([one for several in forms for one in several], dtype=pl.String))
        self.vocabulary, self.n, self.n_texts = Vocabulary(lists), n, len(forms)
        self._build_runs(self.vocabulary.number(lists))
        self.words = lists.list.head(_LONGEST)
        self.forms = self.vocabulary.number(self.words)
        self.first_form = np.searchsorted(self.owner, np.arange(len(forms) + 1))
        self.reach = np.zeros(len(forms), np.int64)
        np.maximum.at(self.reach, self.owner, self.forms.lengths)
        self._present = np.zeros(len(self.vocabulary), bool)
        self._weigh()
        self._point()

    def _weigh(self) -> None:
        """Rarity of every word, and of every word of a form as a share: half rarity, half number."""
        size = len(self.vocabulary)
        once = np.unique(self.owner[self.forms.texts()] * size + self.forms.ids) % size
        self.rarity = np.log((self.n_texts + 1) / np.maximum(1, np.bincount(once, minlength=size)))
        self.rarity[0] = 0.0
        rarity, form = self.rarity[self.forms.ids], self.forms.texts()
        total = np.bincount(form, rarity, minlength=len(self.owner))[form]
        even = 1 / self.forms.lengths[form]
        self.shares = (np.divide(rarity, total, out=even.copy(), where=total > 0) + even) / 2

    def _build_runs(self, forms: Numbered) -> None:
        """`n` words in a row, hashed; those of a template that many texts share are left out."""
        places, codes = forms.runs(self.n)
        form = forms.texts()[places]
        texts, _ = _pairs(codes, self.owner[form])
        known, counts = np.unique(texts, return_counts=True)
        template = known[counts > max(10, self.n_texts // 100)]
        codes, first = np.unique(codes, return_index=True)
        own = ~np.isin(codes, template)
        self.runs, self.run_form, self.run_place = Lookup(codes[own]), form[first[own]], places[first[own]]
        self._run_ids = forms.ids

    def _point(self) -> None:
        least = np.full(self.n_texts, np.iinfo(np.int64).max)
        np.minimum.at(least, self.owner, self.forms.lengths)
        short = least < _SHORT
        self.pointers = [
            _Pointers(self.forms, self.owner, short, *_PAIRS),
            _Pointers(self.forms, self.owner, ~short, *_TRIPLES),
        ]
        good = [(p.n_sharing <= _SHARED) & (p.rarities(self.rarity) >= _LEAST_RARITY) for p in self.pointers]
        texts = np.concatenate([p.text for p in self.pointers])
        n_good = np.bincount(texts, np.concatenate(good), minlength=self.n_texts)
        poor = n_good * 2 < np.bincount(texts, minlength=self.n_texts)
        weight = np.zeros(len(self.owner))
        for pointers, better in zip(self.pointers, good, strict=True):
            kept = better | (poor[pointers.text] & (pointers.n_sharing <= _SHARED_AT_MOST))
            weight += pointers.settle(kept, self.n_texts)
        self.least_weight = np.full(self.n_texts, np.inf)
        np.minimum.at(self.least_weight, self.owner, np.where(weight > 0, weight, np.inf))

    def search(self, texts: pl.Series) -> Iterator[list[tuple[Match, str, str]]]:
        """For each text its matches, best first, with the words of the document and those of the form."""
        sizes = texts.str.len_bytes().fill_null(0).to_numpy().astype(np.int64)
        batches = np.cumsum(sizes) // _BATCH_BYTES
        for first, last in _spans(batches):
            lists = words(texts[first:last])
            documents = self.vocabulary.number(lists)
            found = self._batch(documents)
            for text, own in enumerate(lists):
                told = []
                for match in sorted(found.get(text, {}).values(), key=_order)[:_TOLD]:
                    start = int(documents.starts[text])
                    excerpt = " ".join(own[match.begin - start : match.end - start])
                    told.append((match, excerpt, " ".join(self.words[match.form])))
                yield told

    def _batch(self, documents: Numbered) -> dict[int, dict[int, Match]]:
        found: dict[int, dict[int, Match]] = {}
        for text, place, form in self._verbatim(documents):
            item = int(self.owner[form])
            score, begin, end = self._align(form, documents.ids, *self._region(documents, text, place, item))
            begin, end = min(begin, place), max(end, place + self.n)
            found.setdefault(text, {})[item] = Match(score, True, form, begin, end)
        for text, place, item in self._gathered(documents):
            region = self._region(documents, text, place, item)
            for form in self._possible(item, documents.ids[slice(*region)]):
                score, begin, end = self._align(form, documents.ids, *region)
                before = found.get(text, {}).get(item)
                if score >= LEAST_SCORE and (before is None or score > before.score + 1e-9):
                    verbatim = before is not None and before.verbatim
                    found.setdefault(text, {})[item] = Match(score, verbatim, form, begin, end)
        return found

    def _verbatim(self, documents: Numbered) -> list[tuple[int, int, int]]:
        """Text, place and form of the first run of each form in each document."""
        places, codes = documents.runs(self.n)
        which, at = self.runs.find(codes)
        places, form = places[which], self.run_form[at]
        steps = np.arange(self.n)
        # a hash is a hint only
        same = documents.ids[places[:, None] + steps] == self._run_ids[self.run_place[at][:, None] + steps]
        places, form = places[same.all(axis=1)], form[same.all(axis=1)]
        text = np.searchsorted(documents.starts, places, side="right") - 1
        _, first = np.unique(text * len(self.owner) + form, return_index=True)
        return [(int(text[i]), int(places[i]), int(form[i])) for i in first]

    def _gathered(self, documents: Numbered) -> list[tuple[int, int, int]]:
        """Document, place and text where much of what points to the text stands close together."""
        parts = [part for pointers in self.pointers for part in pointers.find(documents)]
        places, items, weights = (np.concatenate(part) for part in zip(*parts, strict=True))
        key = (items << 32) | places
        order = np.argsort(key, kind="stable")
        key, places, items, weights = key[order], places[order], items[order], weights[order]
        summed = np.concatenate([[0.0], np.cumsum(weights)])
        document = np.searchsorted(documents.starts, places, side="right") - 1
        window = self.reach[items] * 5 // 4 + 4
        until = np.minimum(places + window, documents.starts[document + 1])
        strength = (summed[np.searchsorted(key, (items << 32) | until)] - summed[:-1]) / self.least_weight[
            items
        ]
        strong = np.flatnonzero(strength >= _LEAST_STRENGTH)
        block = (places[strong] - documents.starts[document[strong]]) // window[strong]
        order = np.lexsort((-strength[strong], block, document[strong], items[strong]))
        best = strong[order]
        same = np.zeros(len(best), bool)
        for column in (block[order], document[best], items[best]):
            same[1:] |= column[1:] != column[:-1]
        same[:1] = True
        return [(int(document[i]), int(places[i]), int(items[i])) for i in best[same]]

    def _region(self, documents: Numbered, text: int, place: int, item: int) -> tuple[int, int]:
        reach = int(self.reach[item])
        first, last = place - reach, place + reach * 3 // 2 + 4
        return max(first, int(documents.starts[text])), min(last, int(documents.starts[text + 1]))

    def _possible(self, item: int, region: Ints) -> list[int]:
        """Forms of which enough words are in the region, in whatever order, that `_align` may succeed."""
        self._present[region] = True
        forms = range(self.first_form[item], self.first_form[item + 1])
        spans = [slice(self.forms.starts[form], self.forms.starts[form + 1]) for form in forms]
        most = [self.shares[span] @ self._present[self.forms.ids[span]] for span in spans]
        self._present[region] = False
        return [form for form, share in zip(forms, most, strict=True) if share >= LEAST_SCORE]

    def _align(self, form: int, ids: Ints, first: int, last: int) -> tuple[float, int, int]:
        """Score of the best alignment of the whole form with any part of the region, and that part."""
        begin, end = self.forms.starts[form], self.forms.starts[form + 1]
        region, gap = ids[first:last], _GAP / (end - begin)
        ramp = gap * np.arange(len(region) + 1)
        rows = np.zeros((end - begin + 1, len(region) + 1))
        for i, (word, share) in enumerate(
            zip(self.forms.ids[begin:end], self.shares[begin:end], strict=True), start=1
        ):
            row = rows[i - 1].copy()
            np.maximum(row[1:], rows[i - 1, :-1] + share * (region == word), out=row[1:])
            # a gap costs the same wherever it begins, so its best beginning is a running maximum
            rows[i] = np.maximum.accumulate(row + ramp) - ramp
        i, j = len(rows) - 1, int(rows[-1].argmax())
        score, stop = float(rows[-1, j]), j
        while i and j and rows[i, j] > 1e-12:
            if rows[i, j] <= rows[i - 1, j] + 1e-12:
                i -= 1
            elif rows[i, j] <= rows[i, j - 1] - gap + 1e-12:
                j -= 1
            else:
                i, j = i - 1, j - 1
        return score, first + j, first + stop


def _order(match: Match) -> tuple[bool, float, int]:
    return not match.verbatim, -match.score, match.form


def _pairs(a: Ints, b: Ints) -> tuple[Ints, Ints]:
    """Different pairs, in order."""
    order = np.lexsort((b, a))
    a, b = a[order], b[order]
    first = np.ones(len(a), bool)
    first[1:] = (a[1:] != a[:-1]) | (b[1:] != b[:-1])
    return a[first], b[first]


def _spans(keys: Ints) -> list[tuple[int, int]]:
    """Begin and end of each run of equal keys."""
    if not len(keys):
        return []
    cuts = [0, *(np.flatnonzero(np.diff(keys)) + 1).tolist(), len(keys)]
    return list(pairwise(cuts))

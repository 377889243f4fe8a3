"""The ids of a byte-level BPE by tiktoken, where they are provably those of Hugging Face's `tokenizers`.

Both split a text into words by a regular expression and join byte pairs inside of each word, the best pair
first, of equal ones the leftmost. `tokenizers` joins what its list of merges names, in the list's order.
tiktoken joins any two tokens that make a third, in the order of the third's id. The two are the same when

1. every token, taken as a word, is joined to that token by the merges alone, and
2. the tokens that the merges make have rising ids, which also gives every token one merge only.

Why: let `a b` stand side by side at some moment of tokenizers' work and make up a token t. Nothing has been
joined across t's ends so far, so what happened between them is how t's own word begins: the merges see the
same pairs there, in the same order. By 1 that word ends as t, and it passes through one pair only, the one
that the merge of t names. So tiktoken sees the same candidates, and by 2 ranks them alike; step by step both
do the same. A token that its merges do not reach is left out of tiktoken's table, for `tokenizers` never
writes it either. Where whole words are looked up first (``ignore_merges``) it has to stay, which is safe when
it falls into three parts or more: no pair makes it then.

What depends on a library's tables (which characters are letters) is measured, on each character that a text
has. Texts with a character on which they differ, and all else that is in doubt, go to `tokenizers`.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import tiktoken
import tokenizers
from tokenizers import models

from llm.tokenizers.base import well_formed
from llm.tokenizers.exchange import byte_alphabet

CONTRACTIONS = r"'(?:s|t|re|ve|m|ll|d)"
GPT2 = rf"{CONTRACTIONS}| ?\p{{L}}+| ?\p{{N}}+| ?[^\s\p{{L}}\p{{N}}]+|\s+(?!\S)|\s+"
ONE_DIGIT = r"\p{N}"


def cl100k(digits: str) -> str:
    """The rule of GPT-4's tokenizer, which Llama 3 and Qwen 2 took over, with so many digits to a word."""
    return (
        rf"(?i:{CONTRACTIONS})|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    )


LLAMA3 = cl100k(r"\p{N}{1,3}")
QWEN2 = cl100k(ONE_DIGIT)

PATTERNS: Mapping[tuple[str, ...], str] = {
    (GPT2,): GPT2,
    (LLAMA3,): LLAMA3,
    (QWEN2,): QWEN2,
    # Digits are set apart first: each is a word, and white space ahead of one ends a part of the text.
    (ONE_DIGIT, GPT2): GPT2.replace(r" ?\p{N}+", ONE_DIGIT).replace(r"(?!\S)", r"(?![^\s\p{N}])"),
}
"""One regular expression for each known way to split, by the rules that `tokenizers` applies in turn."""

ENOUGH_CHARACTERS = 1 << 18
"""In a batch: below, the proof costs more than it gains."""

MOST_SPACES = 1 << 19
"""In a row: tiktoken's regular expressions keep a stack, of a million places, for a run of white space."""
TOO_MANY_SPACES = re.compile(rf"(?<!\s)\s{{{MOST_SPACES},}}")

SAMPLE_CHARACTERS = 1 << 16


class Encoder:
    """Batches of texts to ids, by the faster library that gives the ids of `backend`.

    Args:
        backend: one whose ``encode_special_tokens`` is set, so that text spells no special token.
    """

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        self._backend = backend
        self._ranked: RankedPairs | None = None
        self._tried = False

    def __call__(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text, in several threads (TOKENIZERS_PARALLELISM=false, RAYON_NUM_THREADS=n)."""
        try:
            return self._encode(texts)
        except TypeError:  # the library's answer to a lone surrogate
            return self._encode([well_formed(text) for text in texts])

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        if not self._tried and sum(map(len, texts)) >= ENOUGH_CHARACTERS:
            self._ranked, self._tried = proven(self._backend), True
        if self._ranked is not None:
            found = self._ranked.encode_batch(texts)
            if found is not None:
                return found
            self._ranked = None
        return [one.ids for one in self._backend.encode_batch_fast(texts, add_special_tokens=False)]


class RankedPairs:
    """Encodes with tiktoken what it is proven for, and the rest with `tokenizers`; made by `proven`.

    Args:
        backend: the tokenizer whose ids to give.
        encoding: what tiktoken makes of it.
        kept: texts of added tokens that `tokenizers` keeps whole wherever a text has them.
        only_ascii: other texts change before they are split (they are composed, for example).
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        encoding: tiktoken.Encoding,
        kept: Sequence[str] = (),
        only_ascii: bool = False,
    ) -> None:
        self._backend, self._encoding, self._only_ascii = backend, encoding, only_ascii
        missing = [value for value in range(256) if bytes([value]) not in encoding._mergeable_ranks]
        self._apart = [*kept, *(chr(value) for value in missing if value < 0x80)]
        rule = json.loads(backend.to_str())["pre_tokenizer"]
        self._characters = Characters(rule, encoding._pat_str, frozenset(missing))
        self._sampled = False

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]] | None:
        """The ids of each text; None when a sample of them shows that the libraries differ after all."""
        safe = self._safe(texts)
        if not self._sampled:
            sample = [text[:SAMPLE_CHARACTERS] for text, fast in zip(texts, safe, strict=True) if fast][:4]
            if _differing(self._backend, self._encoding, sample):
                return None
            self._sampled = True
        left = [text for text, fast in zip(texts, safe, strict=True) if not fast]
        encoded = iter(self._backend.encode_batch_fast(left, add_special_tokens=False) if left else ())
        found = iter(self._fast([text for text, fast in zip(texts, safe, strict=True) if fast]))
        return [next(found) if fast else next(encoded).ids for fast in safe]

    def _safe(self, texts: Sequence[str]) -> list[bool]:
        """Of each text, whether what is proven covers it."""
        doubtful = frozenset[str]()
        if not self._only_ascii:
            doubtful = self._characters.doubtful([text for text in texts if not text.isascii()])
        return [
            (len(text) < MOST_SPACES or not TOO_MANY_SPACES.search(text))
            and not any(one in text for one in self._apart)
            and (text.isascii() or not (self._only_ascii or (doubtful and not doubtful.isdisjoint(text))))
            for text in texts
        ]

    def _fast(self, texts: Sequence[str]) -> Iterable[list[int]]:
        """tiktoken's ids of each text, in as many threads as `tokenizers` takes."""
        n_threads = min(threads(), len(texts))
        if n_threads < 2:
            return map(self._encoding.encode_ordinary, texts)
        with ThreadPoolExecutor(n_threads) as pool:
            return list(pool.map(self._encoding.encode_ordinary, texts))


class Characters:
    """Finds the characters that the two libraries take for different things, having older or newer tables.

    Both split each character beside a letter, a digit and a sign, with a vocabulary in which every byte joins
    those three: the ids tell where a word ended. A character is tried when a text has it for the first time.

    Args:
        pre_tokenizer: how `tokenizers` splits a text, as its ``tokenizer.json`` says it.
        pattern: tiktoken's regular expression for the same.
        missing: bytes that the vocabulary lacks; `tokenizers` leaves them out, tiktoken cannot.
    """

    def __init__(
        self, pre_tokenizer: Mapping[str, Any], pattern: str, missing: frozenset[int] = frozenset()
    ) -> None:
        self._missing = missing
        alphabet = byte_alphabet()
        around = [*((one, sign) for sign in "a1!" for one in alphabet), *(("a", one) for one in alphabet)]
        pairs = list(dict.fromkeys(around))
        vocabulary = {name: number for number, name in enumerate([*alphabet, *map("".join, pairs)])}
        backend = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=pairs))
        about = json.loads(backend.to_str()) | {"pre_tokenizer": pre_tokenizer}
        self._backend = tokenizers.Tokenizer.from_str(json.dumps(about))
        ranks = _ranks(about["model"])
        assert ranks is not None
        self._encoding = tiktoken.Encoding("probe", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
        self._tried: set[str] = set()
        self._doubtful: frozenset[str] = frozenset()

    def doubtful(self, texts: Sequence[str]) -> frozenset[str]:
        """The characters found so far, those of `texts` among them."""
        new = sorted(set[str]().union(*texts) - self._tried)
        if new:
            probes = [f"{one}a\na{one}\n{one}1\n{one}!\n'{one}a\n" for one in new]
            found = {new[number] for number in _differing(self._backend, self._encoding, probes)}
            self._tried.update(new)
            self._doubtful |= found | {one for one in new if not self._missing.isdisjoint(one.encode())}
        return self._doubtful


def _differing(backend: tokenizers.Tokenizer, encoding: tiktoken.Encoding, texts: Sequence[str]) -> list[int]:
    """The numbers of the texts to which the two give different ids."""
    encoded = backend.encode_batch_fast(texts, add_special_tokens=False)
    fast = map(encoding.encode_ordinary, texts)
    return [number for number, (one, ids) in enumerate(zip(encoded, fast, strict=True)) if one.ids != ids]


def threads() -> int:
    """How many threads `tokenizers` would take."""
    if os.environ.get("TOKENIZERS_PARALLELISM", "").lower() in ("false", "off", "no", "f", "n", "0"):
        return 1
    given = os.environ.get("RAYON_NUM_THREADS", "")
    return int(given) if given.isdigit() and int(given) else len(os.sched_getaffinity(0))


def proven(backend: tokenizers.Tokenizer) -> RankedPairs | None:
    """tiktoken for the ids of `backend`, or None where nothing proves that they would be the same.

    Args:
        backend: one whose ``encode_special_tokens`` is set, so that text spells no special token.
    """
    about = json.loads(backend.to_str())
    model, normalizer = about["model"], about["normalizer"]
    pattern = _pattern(about["pre_tokenizer"])
    shortens = about["truncation"] or about["padding"]
    composes = normalizer is not None and normalizer["type"] in ("NFC", "NFD", "NFKC", "NFKD")
    if pattern is None or shortens or not (normalizer is None or composes):
        return None
    if not backend.encode_special_tokens:
        return None
    ranks = _ranks(model) if model["type"] == "BPE" else None
    if ranks is None:
        return None
    kept = [token["content"] for token in about["added_tokens"] if not token["special"]]
    encoding = tiktoken.Encoding("proven", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
    return RankedPairs(backend, encoding, kept, composes)


def _pattern(pre_tokenizer: Mapping[str, Any] | None) -> str | None:
    """tiktoken's regular expression for a way to split text into words; None when it is not known."""
    steps = [pre_tokenizer] if pre_tokenizer else []
    if pre_tokenizer and pre_tokenizer["type"] == "Sequence":
        steps = pre_tokenizer["pretokenizers"]
    rules: list[str] = []
    for place, step in enumerate(steps):
        match step:
            case {"type": "Split", "pattern": {"Regex": rule}, "behavior": "Isolated", "invert": False}:
                rules.append(_without_spelling(rule))
            case {"type": "Digits", "individual_digits": True}:
                rules.append(ONE_DIGIT)
            case {"type": "ByteLevel", "add_prefix_space": False} if place == len(steps) - 1:
                rules += [GPT2] if step.get("use_regex", True) else []
                return PATTERNS.get(tuple(rules))
            case _:
                return None
    return None


def _without_spelling(rule: str) -> str:
    """A rule in which the contractions are spelled as here."""
    return rule.replace("'s|'t|'re|'ve|'m|'ll|'d", CONTRACTIONS)


def _ranks(model: Mapping[str, Any]) -> dict[bytes, int] | None:
    """tiktoken's table for a BPE model of `tokenizers`, or None where the two might join differently."""
    plain = not any(model.get(key) for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"))
    vocabulary: dict[str, int] = model["vocab"]
    alphabet = {
        character: value for value, character in enumerate(byte_alphabet()) if character in vocabulary
    }
    if not plain:
        return None
    merges = [(first, second) for first, second in model["merges"]]
    made = [vocabulary[first + second] for first, second in merges]
    if any(one >= other for one, other in pairwise(made)):
        return None
    joined = models.BPE(vocab=vocabulary, merges=merges, ignore_merges=False)
    ranks: dict[bytes, int] = {}
    for token, index in vocabulary.items():
        if not alphabet.keys() >= set(token):  # no word of these bytes is ever this token
            continue
        n_parts = len(joined.tokenize(token))
        if n_parts != 1 and model.get("ignore_merges"):
            if n_parts == 2:
                return None
        elif n_parts != 1:
            continue
        ranks[bytes(alphabet[character] for character in token)] = index
    return ranks

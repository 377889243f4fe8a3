"""Token boundaries and windows over long texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from llm.evaluation.spans import boundary, windows
from llm.tokenizers.bpe import train as train_bpe


@pytest.mark.parametrize("max_inputs", [1, 2, 3, 8, 50])
@pytest.mark.parametrize(("first", "n"), [(1, 2), (1, 30), (7, 30), (29, 30), (30, 30)])
def test_windows_cover_each_token_once_within_the_context(first: int, n: int, max_inputs: int) -> None:
    scored: list[int] = []
    for begin, start, end in windows(first, n, max_inputs):
        assert 0 <= begin < start < end <= n
        assert end - 1 - begin <= max_inputs
        if begin:
            assert start - begin >= min(max_inputs // 2, start), "less context than promised"
        scored += range(start, end)
    assert scored == list(range(first, n))


def test_windows_as_drawn() -> None:
    assert list(windows(1, 10, 4)) == [(0, 1, 5), (2, 5, 7), (4, 7, 9), (5, 9, 10)]


class Merging:
    """A vocabulary in which the end of the prompt and the start of the continuation melt together."""

    eos_id = None

    def __init__(self, *merges: str) -> None:
        self.pieces = sorted({*"abcdefgh", *merges}, key=len, reverse=True)
        self.vocab_size = len(self.pieces)

    def encode(self, text: str) -> list[int]:
        ids = []
        while text:
            piece = next(p for p in self.pieces if text.startswith(p))
            ids.append(self.pieces.index(piece))
            text = text[len(piece) :]
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(self.pieces[i] for i in ids)


@pytest.mark.parametrize(
    ("merges", "prompt", "continuation", "context"),
    [
        ((), "abc", "def", ["a", "b", "c"]),
        (("cd",), "abc", "def", ["a", "b"]),  # the token "cd" straddles: it is scored
        (("bcd", "ab"), "abc", "def", ["ab", "c"]),  # greedy takes ab first: nothing straddles
        (("bc", "abcd"), "abc", "def", []),  # one token swallows the whole prompt
        (("fg", "efg", "ef"), "aef", "gh", ["a"]),
        (("cab", "abcd"), "aabc", "de", ["a"]),
        (("bc", "cdd"), "abc", "dd", ["a", "bc"]),
        (("abc", "bcde", "abcdef"), "abc", "def", []),
        ((), "", "ab", []),
    ],
)
def test_boundary(merges: tuple[str, ...], prompt: str, continuation: str, context: list[str]) -> None:
    tokenizer: Any = Merging(*merges)
    whole = tokenizer.encode(prompt + continuation)
    n = boundary(tokenizer, prompt, whole)
    assert [tokenizer.decode([i]) for i in whole[:n]] == context


def test_boundary_when_the_prompt_is_cut_differently_in_the_whole() -> None:
    """prompt alone: a|bc, in the whole: ab|cd. Only "ab" is prompt, though alone and whole part at once."""

    class Scripted(Merging):
        def encode(self, text: str) -> list[int]:
            cuts = {"abc": ["a", "bc"], "abcd": ["ab", "cd"]}
            return [self.pieces.index(piece) for piece in cuts[text]]

    tokenizer: Any = Scripted("ab", "bc", "cd")
    assert boundary(tokenizer, "abc", tokenizer.encode("abcd")) == 1


def test_boundary_on_a_trained_bpe() -> None:
    """Whatever it merges, the context decodes to a part of the prompt and nothing of the answer."""
    tokenizer = train_bpe(["the cat sat on the mat, the hat, that cat"] * 50, vocab_size=300)
    for prompt, continuation in [
        ("the ca", "t sat"),
        ("the", " cat"),
        ("", "the"),
        ("th", "at"),
        ("the cat ", "sat"),
    ]:
        whole = tokenizer.encode(prompt + continuation)
        n = boundary(tokenizer, prompt, whole)
        assert prompt.startswith(tokenizer.decode(whole[:n]))
        if n < len(whole):
            assert len(tokenizer.decode(whole[: n + 1])) > len(prompt)

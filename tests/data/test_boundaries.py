"""Where documents end, found in token ids, against the text itself."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from llm.data.boundaries import AfterBlankLine, AfterId, numbered
from llm.tokenizers import byte


class Pieces:
    """A tokenizer whose ids stand for these texts."""

    eos_id = None
    texts = ("a", "\n", "\n\n", "b\n", "\nc", "d\n\n", "\n\ne", "")
    vocab_size = len(texts)

    def encode(self, text: str) -> list[int]:
        raise NotImplementedError

    def decode(self, ids: list[int]) -> str:
        return "".join(self.texts[i] for i in ids)

    def save(self, directory: object) -> None:
        raise NotImplementedError


def test_an_id_belongs_to_the_document_it_ends() -> None:
    ends = AfterId(9)(np.array([1, 9, 2, 3, 9, 9, 4], dtype=np.uint16))
    assert ends.tolist() == [False, True, False, False, True, True, False]
    assert numbered(ends).tolist() == [0, 0, 1, 1, 1, 2, 3]


@given(st.lists(st.integers(0, Pieces.vocab_size - 2), min_size=1, max_size=30))
def test_blank_lines_by_tokens_are_those_of_the_text(ids: list[int]) -> None:
    found = AfterBlankLine(Pieces())(np.array(ids))
    for place in range(len(ids)):
        before, after = Pieces().decode(ids[: place + 1]), Pieces().decode(ids[place + 1 :])
        assert found[place] == (before.endswith("\n\n") and not after.startswith("\n")), (ids, place)


def test_blank_lines_of_bytes() -> None:
    tokenizer = byte.train([])
    text = "one\ntwo\n\nthree\n\n\nfour\n"
    documents = numbered(AfterBlankLine(tokenizer)(np.array(tokenizer.encode(text))))
    parts = ["".join(c for c, d in zip(text, documents, strict=True) if d == n) for n in range(3)]
    assert parts == ["one\ntwo\n\n", "three\n\n\n", "four\n"]

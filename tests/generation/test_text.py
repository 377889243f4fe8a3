"""Pieces of text are final: characters stay whole, stop texts stay out, and the pieces join to the text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm.generation.text import TextStream
from tests.generation.fakes import ByteTokenizer

TEXT = "naïve 日本 👩‍🚀 — done\n"


def _pieces(data: bytes, stop: tuple[str, ...] = ()) -> tuple[list[str], TextStream]:
    stream, pieces = TextStream(ByteTokenizer(), stop), []
    for byte in data:
        pieces.append(stream.push(byte))
        if stream.stopped:
            break
    return [*pieces, stream.finish()], stream


def test_characters_stay_whole():
    pieces, stream = _pieces(TEXT.encode())
    assert "".join(pieces) == TEXT == stream.text
    assert [piece for piece in pieces if piece] == list(TEXT)


def test_an_unfinished_character_shows_at_the_end():
    pieces, _ = _pieces("ab👩".encode()[:-1])
    assert pieces == ["a", "b", "", "", "", "\ufffd"]


def test_invalid_bytes_do_not_block():
    pieces, _ = _pieces(b"\xff\xfeok")
    assert "".join(pieces) == "\ufffd\ufffdok"
    assert pieces[2] == "\ufffd\ufffdo"


def test_a_stop_text_is_cut_and_never_shown():
    pieces, stream = _pieces(b"one STOP two", ("STOP",))
    assert pieces == ["o", "n", "e", " ", "", "", "", "", ""]
    assert stream.stopped
    assert stream.text == "one "


def test_what_only_looked_like_a_stop_text_is_shown():
    pieces, stream = _pieces(b"STO! STOSTOP", ("STOP",))
    assert pieces[:4] == ["", "", "", "STO!"]
    assert stream.text == "STO! STO"
    pieces, stream = _pieces(b"ST", ("STOP",))
    assert pieces == ["", "", "ST"]
    assert not stream.stopped


def test_the_first_of_several_stop_texts():
    _, stream = _pieces(b"a\nUser: b", ("User:", "\n"))
    assert stream.text == "a"


def test_a_stop_text_inside_one_token():
    class Words(ByteTokenizer):
        def decode(self, ids):
            return "".join(["hello ", "wor END ld", "x"][i] for i in ids)

    stream = TextStream(Words(), ("END",))
    assert [stream.push(0), stream.push(1), stream.finish()] == ["hello ", "wor ", ""]


def test_a_tokenizer_that_treats_the_first_token_specially():
    """As SentencePiece does, which drops the space before the first word."""

    class Spaced(ByteTokenizer):
        def decode(self, ids):
            return "".join([" a", " b", "c"][i] for i in ids).removeprefix(" ")

    stream = TextStream(Spaced())
    pieces = [stream.push(i) for i in (0, 1, 2, 1, 0)]
    assert "".join(pieces) == "a bc b a"


@given(
    data=st.binary(max_size=40) | st.text(max_size=20).map(str.encode),
    stop=st.lists(st.text("ab\x00é", min_size=1, max_size=3), max_size=2).map(tuple),
)
def test_pieces_join_to_the_text_before_the_stop(data: bytes, stop: tuple[str, ...]):
    pieces, stream = _pieces(data, stop)
    whole = data.decode("utf-8", errors="replace")
    # The first stop text to be complete counts, though a longer one may have begun before it.
    so_far = (whole[:n] for n in range(len(whole) + 1))
    ended = next((text for text in so_far if any(s in text for s in stop)), None)
    expected = whole if ended is None else ended[: min(ended.find(s) for s in stop if s in ended)]
    assert "".join(pieces) == stream.text == expected
    assert stream.stopped == (ended is not None)


def test_the_stop_text_that_is_complete_first_counts():
    pieces, _ = _pieces(b"xabc", ("abc", "b"))
    assert "".join(pieces) == "xa"


@pytest.mark.parametrize("size", [50, 400])
def test_decoding_takes_the_same_for_each_token(size: int):
    class Counting(ByteTokenizer):
        longest = 0

        def decode(self, ids):
            self.longest = max(self.longest, len(ids))
            return super().decode(ids)

    tokenizer = Counting()
    stream = TextStream(tokenizer)
    for byte in b"x" * size:
        stream.push(byte)
    assert tokenizer.longest <= 2

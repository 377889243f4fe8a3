"""Passages are cut where a plain search over all windows finds them, and nowhere else."""

from __future__ import annotations

import random

import polars as pl
import pytest

from llm.curation import hashing, substring_dedup
from llm.curation import windows as windows_module
from llm.curation.base import judge
from llm.curation.substring_dedup import SubstringDedup, cut, merged
from llm.curation.windows import batches, spans
from tests.curation.corpora import documents, judge_in_shards


def repeated_bytes(texts: list[str], length: int) -> list[set[int]]:
    """By definition: a window that begins earlier elsewhere, or in its own document without overlap."""
    seen: dict[bytes, tuple[int, int]] = {}
    found: list[set[int]] = [set() for _ in texts]
    for row, text in enumerate(texts):
        data = text.encode()
        for start in range(len(data) - length + 1):
            first_row, first = seen.setdefault(data[start : start + length], (row, start))
            if first_row != row or start >= first + length:
                found[row].update(range(start, start + length))
    return found


def expected(texts: list[str], length: int) -> list[str]:
    left = []
    for text, gone in zip(texts, repeated_bytes(texts, length), strict=True):
        at, kept = 0, []
        for character in text:
            size = len(character.encode())
            if not gone.issuperset(range(at, at + size)):
                kept.append(character)
            at += size
        left.append("".join(kept))
    return left


ALPHABETS = ["ab", "abcdefghijklmnopqrstuvwxyz     \n", "aé日𝄞 \u0301אب"]


def planted(rng: random.Random, length: int) -> list[str]:
    """Random texts with passages planted in them: too short ones, long enough ones, periods and runs."""

    def noise(most: int) -> str:
        alphabet = rng.choice(ALPHABETS)
        return "".join(rng.choice(alphabet) for _ in range(rng.randint(0, most)))

    passages = [noise(3 * length) for _ in range(6)]
    passages += [
        "-" * rng.randint(1, 5 * length),
        "=-" * rng.randint(1, 2 * length),
        "abc" * rng.randint(1, length),
    ]
    texts = ["", "\n" * rng.randint(1, 3 * length)]
    for _ in range(rng.randint(2, 14)):
        parts = []
        for _ in range(rng.randint(0, 4)):
            passage = rng.choice(passages)
            start = rng.randint(0, len(passage))
            parts += [noise(length), passage[start : start + rng.randint(0, 3 * length)]]
        texts.append("".join(parts))
    rng.shuffle(texts)
    return texts


@pytest.mark.parametrize(("length", "seed"), [(16, 0), (16, 1), (21, 2), (32, 3), (50, 4), (50, 5)])
def test_cuts_what_a_plain_search_finds(length: int, seed: int, tmp_path, monkeypatch):
    rng = random.Random(1000 * length + seed)
    # small batches and parts, so that their seams lie within passages
    monkeypatch.setattr(windows_module, "BATCH_BYTES", rng.choice([length + 3, 150, 1 << 20]))
    monkeypatch.setattr(hashing, "ROWS_AT_ONCE", rng.choice([100, 1 << 20]))
    monkeypatch.setattr(substring_dedup, "BATCHES_TOGETHER", rng.choice([2, 64]))
    texts = planted(rng, length)
    step = SubstringDedup(min_bytes=length, min_left=0.0)
    left = expected(texts, length)
    for name, sizes in (("one", []), ("many", [1, 2, 0, 3])):
        judged = judge_in_shards(step, documents(texts), sizes, tmp_path / name)
        got = [
            text if keep else ""  # nothing left: the document goes with its text
            for text, keep in judged.select("text", "keep").iter_rows()
        ]
        want = [one if one.strip() or one == text else "" for one, text in zip(left, texts, strict=True)]
        assert got == want
        changed = [one != text for one, text in zip(left, texts, strict=True)]
        assert judged["reason"].is_not_null().to_list() == changed


def test_a_long_document_and_one_of_a_single_character():
    rng = random.Random(5)
    book = "".join(rng.choice(ALPHABETS[1]) for _ in range(300_000))
    # the second run of dashes is also longer than a batch
    texts = [book, "-" * 1000, f"{book[:1000]}!{book[150_000:]}", "-" * (3 << 20)]
    step = SubstringDedup(min_bytes=100, min_left=0.0)
    judged = judge(step, documents([*texts, f"new #{book[77:177]}# and #{book[5_000:5_099]}#"]))
    assert (
        judged["text"].to_list()
        == [
            book,
            "-" * 100,
            "!",
            "-" * (3 << 20),  # nothing of it is left, so it goes as it is
            f"new ## and #{book[5_000:5_099]}#",
        ]
    )
    assert judged["keep"].to_list() == [True, True, True, False, True]
    assert judged["reason"].to_list() == [
        None,
        "repeated_passages",
        "repeated_passages",
        "mostly_repeated_passages",
        "repeated_passages",
    ]
    assert judged["score"][2] == pytest.approx(1 - 1 / 151_001)


def test_notes_are_few():
    rng = random.Random(6)
    book = "".join(rng.choice(ALPHABETS[1]) for _ in range(100_000))
    step = SubstringDedup(min_bytes=200)
    notes = step.survey(documents([book]))
    assert notes.height < 100_000 / 60  # the expected density of winnowing is 2 in 138
    assert step.survey(documents(["-" * 100_000])).height < 2000, "a run is not noted byte by byte"


def test_spans_cover_every_window_once():
    rng = random.Random(7)
    text = "".join(rng.choice(ALPHABETS[1]) for _ in range(5000)).encode()
    found = pl.concat([spans(batch, 50) for batch in batches([(3, 0, text), (4, 10, text[:60])], 50)])
    starts = {
        (row, start + i)
        for row, start, n in found.select("row", "start", "count").iter_rows()
        for i in range(n)
    }
    assert starts == {(3, i) for i in range(4951)} | {(4, i) for i in range(10, 21)}


def test_domains_short_texts_and_min_left():
    step = SubstringDedup(min_bytes=20, min_left=0.5, except_domains=["code"])
    line, new = "the same thirty characters here", "abcdefghijklmnopqrstuvwxyz0123456789"
    texts = [line, line, line, f"{line} {new}", f"{line}. Short."]
    judged = judge(step, documents(texts, ["text", "code", "text", "text", "text"]))
    assert judged["keep"].to_list() == [True, True, False, True, False]
    assert judged["text"].to_list() == [*texts[:3], f" {new}", texts[4]]
    nothing = judge(step, documents([]))
    assert nothing.height == 0
    assert nothing.schema["keep"] == pl.Boolean


def test_whole_characters_go_or_stay():
    assert cut("aéb", [(0, 2)]) == "éb"
    assert cut("aéb", [(2, 4)]) == "aé"
    assert cut("aéb", [(1, 3)]) == "ab"
    assert cut("é", [(1, 1)]) == "é"
    assert cut("日本語", [(1, 8)]) == "日語"
    assert cut("日本語", [(1, 2), (4, 5)]) == "日本語"


def test_merged_passages():
    rows = [(0, 0, 5, 9), (0, 1, 0, 4), (0, 0, 0, 3), (0, 0, 9, 12), (1, 0, 1, 2), (0, 1, 1, 2)]
    frame = pl.DataFrame(
        rows, schema=dict.fromkeys(["shard", "row", "start", "end"], pl.UInt32), orient="row"
    )
    assert merged(frame).rows() == [(0, 0, 0, 3), (0, 0, 5, 12), (0, 1, 0, 4), (1, 0, 1, 2)]
    assert merged(frame.clear()).schema == frame.schema

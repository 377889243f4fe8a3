"""Lines that many documents share go with every copy."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from llm.curation import hashing
from llm.curation.base import judge
from llm.curation.boilerplate import Boilerplate
from llm.curation.text import TextFiles
from tests.curation.corpora import documents, judge_in_shards


def test_every_copy_goes_and_short_lines_too():
    texts = [f"Home\nPage number {i}\nthis is text {'abcdefg'[i]}\n\n© 2024" for i in range(5)]
    texts.append("Home\nHome\nHome again\nand a text with nothing else around it")
    judged = judge(Boilerplate(min_documents=5), documents(texts))
    assert judged["text"].to_list() == [
        *[f"this is text {'abcdefg'[i]}" for i in range(5)],
        "Home again\nand a text with nothing else around it",
    ]
    assert set(judged["reason"]) == {"boilerplate"}
    assert judge(Boilerplate(min_documents=7), documents(texts))["reason"].null_count() == 6
    counted = judge(Boilerplate(min_documents=5, mask_digits=False), documents(texts))
    assert counted["text"][0] == "Page number 0\nthis is text a"


@pytest.mark.parametrize("per_source", [True, False])
def test_any_shards_the_same_as_a_plain_count(per_source: bool, tmp_path, monkeypatch):
    monkeypatch.setattr(hashing, "ROWS_AT_ONCE", 40)
    rng = random.Random(3)
    lines = [f"line {word}" for word in "abcdefghijklmnop"]
    texts = ["\n".join(rng.choices(lines, range(16, 0, -1), k=rng.randint(1, 6))) for _ in range(60)]
    frame = documents(texts, sources=[f"{number}.txt" for number in range(60)])  # files of two sources
    step = Boilerplate(min_documents=4, min_share=0.2, per_source=per_source, min_left=0.0)
    scopes = [int(per_source and number >= 20) for number in range(60)]
    size = Counter(scopes)
    holders = Counter(
        (scope, line) for scope, text in zip(scopes, texts, strict=True) for line in set(text.split("\n"))
    )
    common = {(scope, line) for (scope, line), n in holders.items() if n >= 4 and n * 5 >= size[scope]}
    want = [
        "\n".join(line for line in text.split("\n") if (scope, line) not in common)
        for scope, text in zip(scopes, texts, strict=True)
    ]
    assert 0 < len(common) < len(holders)
    one = judge_in_shards(step, frame, [20], tmp_path / "one", [0, 1])
    for text, kept, left in zip(one["text"], one["keep"], want, strict=True):
        assert text == left or (not kept and not left)
    assert judge_in_shards(step, frame, [13, 0, 7, 20], tmp_path / "many", [0, 0, 0, 1, 1]).equals(one)


def test_a_source_is_a_reader_whatever_files_it_has(tmp_path):
    pages = [f"Home | About\nthis is page {'abcdefghijklmnopqrst'[i]}" for i in range(20)]
    (tmp_path / "pages").mkdir()
    for number, page in enumerate(pages):
        (tmp_path / "pages" / f"{number}.txt").write_text(page)
    found = TextFiles(str(tmp_path / "pages")).documents().collect()
    assert found["source"].n_unique() == 20, "as many file names as pages"
    assert set(judge(Boilerplate(), found)["reason"]) == {"boilerplate"}
    apart = judge_in_shards(Boilerplate(), found, [10], tmp_path / "apart", [0, 1])
    assert apart["reason"].null_count() == 20, "ten pages each of two sources are too few"


def test_documents_of_nothing_else_go_and_domains_stay():
    texts = ["menu\nmenu"] * 3 + ["menu\nand a sentence that is long enough to stay"]
    judged = judge(Boilerplate(min_documents=2), documents(texts))
    assert judged["keep"].to_list() == [False, False, False, True]
    assert judged["reason"][0] == "mostly_boilerplate"
    assert judged["text"][0] == "menu\nmenu", "what goes, goes as it was"
    spared = judge(Boilerplate(min_documents=2, except_domains=["text"]), documents(texts))
    assert spared["reason"].null_count() == 4
    for nothing in ([], [""], ["\r\n", "\r\n"]):
        assert judge(Boilerplate(min_documents=2), documents(nothing))["keep"].all()

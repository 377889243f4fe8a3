"""Listed words found as whole words, held against plain Python."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import polars as pl
import pytest

from llm.curation.base import judge
from llm.curation.word_list import WordList
from llm.types import ConfigError
from tests.curation.test_steps import corpus


@pytest.fixture
def listed(tmp_path: Path):
    def make(*words: str, **files: str) -> str:
        if not files:
            path = tmp_path / "words.txt"
            path.write_text("# what is not wanted\n" + "\n".join(words), encoding="utf-8")
            return str(path)
        (tmp_path / "lists").mkdir()
        for name, content in files.items():
            (tmp_path / "lists" / f"{name}.txt").write_text(content, encoding="utf-8")
        return str(tmp_path / "lists")

    return make


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("An ASS.", True),
        ("the class passes", False),
        ("ass", True),
        ("grass ass-backwards", True),
        ("snow\n white", True),
        ("snow-white!", True),
        ("snow whites", False),
        ("white snow", False),
        ("\u00c9T\u00c9", True),
        ("\u00e9t\u00e9s", False),
        ("\u5b57\u6f22\u5b57\u5b57", True),
        ("\u3042SM\u3042", True),
        ("spasm", False),
        ("", False),
    ],
)
def test_whole_words_only_where_words_are_apart(listed, text: str, found: bool):
    step = WordList(listed("Ass", "snow white", "\u00e9t\u00e9", "\u6f22\u5b57", "sm"))
    judged = judge(step, corpus([text]))
    assert judged["keep"].to_list() == [not found]
    assert judged["reason"].to_list() == ["listed_words" if found else None]


def test_share_of_words(listed):
    path = listed("red", "red green")
    texts = ["red red blue blue", "blue Red, green blue", "blue", "red"]
    judged = judge(WordList(path), corpus(texts))
    assert judged["score"].to_list() == [0.5, 0.75, 0.0, 1.0]  # phrase and word count each
    assert judge(WordList(path, max_share=0.5), corpus(texts))["keep"].to_list() == [True, False, True, False]
    assert judge(WordList(path, except_words=["RED"]), corpus(texts))["keep"].to_list() == [
        True,
        False,
        True,
        True,
    ]


def test_lists_by_language(listed):
    path = listed(en="gift\n", de="Gift\nkind\n")
    frame = corpus(["a gift", "a kind man", "ein Gift", "une gift"]).with_columns(
        pl.Series("language", ["en", "en", "de", "fr"])
    )
    assert judge(WordList(path), frame)["keep"].to_list() == [False, True, False, True]
    assert judge(WordList(path), frame)["score"].to_list() == [0.5, 0.0, 0.5, None]
    assert judge(WordList(path, languages=["en"]), frame)["keep"].to_list() == [False, True, True, True]
    everything = [False, False, False, False]
    assert judge(WordList(path, by_language=False), frame)["keep"].to_list() == everything
    assert judge(WordList(path), frame.drop("language"))["keep"].to_list() == everything
    with pytest.raises(ConfigError, match=r"there are de, en") as caught:
        WordList(path, languages=["fr"]).prepare(print)
    assert caught.value.key == "languages"


def test_other_domains_are_left_and_the_lists_go_along(listed):
    path = listed("ass")
    step, said = WordList(path, except_domains=["code"]), []
    step.prepare(said.append)
    assert said == ["listed words: all 1"]
    before = step.fingerprint()
    Path(path).write_text("other")
    sent = pickle.loads(pickle.dumps(step))
    assert judge(sent, corpus(["ass", "ass"], ["code", "text"]))["keep"].to_list() == [True, False]
    assert sent.fingerprint() == before != WordList(path).fingerprint()


def test_a_list_must_list_something(listed, tmp_path: Path):
    for path in (listed(""), str(tmp_path / "no.txt")):
        with pytest.raises(ConfigError) as caught:
            WordList(path).prepare(print)
        assert caught.value.key == "path"
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="in this folder"):
        WordList(str(tmp_path / "empty")).prepare(print)


def test_the_list_of_c4_against_a_regular_expression(shared_dir: Path):
    """The same documents, flagged by Python's `re` with every word between characters of no word."""
    path = shared_dir / "data/ldnoobw/en.txt"
    words = [line.strip() for line in path.read_text("utf-8").splitlines() if line.strip()]
    frame = pl.read_csv(shared_dir / "data/hate-speech-davidson/labeled_data.csv.gz", columns=["tweet"])
    texts = frame["tweet"].head(3000).to_list()
    apart = [
        r"[\W_]+".join(map(re.escape, re.split(r"[\W_]+", word.lower())))
        for word in words
        if re.search(r"\w", word)
    ]
    pattern = re.compile(rf"(?<![^\W_])(?:{'|'.join(apart)})(?![^\W_])")
    expected = [not pattern.search(text.lower()) for text in texts]
    judged = judge(WordList(str(path)), corpus(texts))
    assert 0.1 < sum(expected) / len(expected) < 0.9
    assert judged["keep"].to_list() == expected

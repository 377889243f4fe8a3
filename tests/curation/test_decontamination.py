from __future__ import annotations

import gzip
import json
import pickle
import random
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm.benchmarks.decontamination import PlantedItems
from llm.curation.base import judge
from llm.curation.benchmark_items import read_items
from llm.curation.decontamination import REVIEW_SCHEMA, Decontamination
from llm.curation.numbered_words import Lookup, Vocabulary, words
from llm.curation.overlap import _GAP, Match, OverlapIndex
from llm.runs.run import Run
from llm.types import ConfigError
from tests.curation.test_steps import PROSE, corpus

QUESTIONS = [
    ("A robe takes 2 bolts of blue fiber and half that much white fiber. How many bolts does it take?", "3"),
    ("Josh buys a house for $80,000 and puts in $50,000 in repairs. How much profit did he make?", "70000"),
    ("The woman retired, therefore", "she received her pension."),
    ("Predators eat", "bunnies"),
    ("What is it?", "Yes"),
]


@pytest.fixture
def quiz(tmp_path: Path) -> dict[str, dict[str, Any]]:
    path = tmp_path / "quiz.jsonl"
    path.write_text(
        "".join(json.dumps({"q": q, "a": a, "name": f"n{i}"}) + "\n" for i, (q, a) in enumerate(QUESTIONS))
    )
    return {"quiz": {"path": str(path), "text": ["q", "a"], "id": "name"}}


def hidden(text: str) -> str:
    return f"{PROSE}\n{text}\n{PROSE}"


@pytest.mark.parametrize(
    ("text", "item"),
    [
        (" ".join(QUESTIONS[0]), "n0"),
        (
            "a ROBE takes 2\nbolts of blue\tfiber — and half that much white fiber; how many bolts it takes",
            "n0",
        ),
        (
            "A robe takes 2 bolts of red fiber and half that much fiber. How many many bolts does it take? 3",
            "n0",
        ),
        ("he buys a house for $80,000 and puts in $50,000 in repairs. How much", "n1"),  # 13 words of it
        ("The woman retired, therefore she received her pension.", "n2"),
        ("The woman retired, therefore she got her pension.", "n2"),
        ("The woman retired - she received her pension!", "n2"),
        ("The woman, now retired, therefore she received her pension.", "n2"),
        ("The woman retired, therefore", None),  # the question alone may stand anywhere
        ("Predators eat bunnies", None),  # too short to be looked for
        ("What is it? Yes", None),
        ("He buys a house and puts in repairs. How much did the woman who retired make?", None),
        ("", None),
    ],
)
def test_finds(quiz, text: str, item: str | None) -> None:
    judged = judge(Decontamination(quiz), corpus([PROSE, hidden(text)]))
    assert judged["match"].to_list() == [None, item and f"quiz:{item}"]
    assert judged["keep"].to_list() == [True, item is None]
    assert judged["reason"].to_list() == [None, item and "contaminated_quiz"]


def test_scripts_without_spaces_and_accents(tmp_path: Path) -> None:
    path = tmp_path / "items.json"
    items = [
        "水の化学式は何ですか。酸素と水素から成るものです。",
        "Où se trouve l'hôtel de la préfète à Besançon",
    ]
    path.write_text(json.dumps({"data": [{"q": one} for one in items]}))
    step = Decontamination({"other": {"path": str(path), "text": "q"}})
    texts = [
        "問 水の化学式は何ですか。酸素と水素から成るものです",
        "ou se trouve l'hotel\nde la PREFETE a Besancon",
        "酸素と水素",
    ]
    assert judge(step, corpus(texts))["match"].to_list() == ["other:0", "other:1", None]


def test_the_threshold_needs_no_new_measurement(quiz) -> None:
    frame = corpus([hidden("The woman retired, therefore she got her pension.")])
    tagged = frame.hstack(Decontamination(quiz).tag(frame["text"]))
    strict, lax = Decontamination(quiz, threshold=1.0), Decontamination(quiz, threshold=0.5)
    assert strict.tag_key() == lax.tag_key()
    assert judge(strict, tagged)["keep"].to_list() == [True]
    assert judge(lax, tagged)["keep"].to_list() == [False]
    assert Decontamination(quiz, ngram=8).tag_key() != lax.tag_key()
    before = lax.fingerprint()
    assert Decontamination(quiz).fingerprint() == before
    Path(quiz["quiz"]["path"]).write_text(
        '{"q": "another question of more than five words", "a": "", "name": 1}\n'
    )
    assert Decontamination(quiz).tag_key() != lax.tag_key()
    assert lax.fingerprint() != before


def test_tags_and_reviews(quiz) -> None:
    step = pickle.loads(pickle.dumps(Decontamination(quiz, mode="tag")))
    frame = corpus([PROSE, hidden("The woman retired, therefore she got her pension.")])
    judged = judge(step, frame)
    assert judged["keep"].all()
    assert judged["reason"].null_count() == 2
    assert judged["contamination"][0] is None
    evidence = json.loads(judged["contamination"][1])
    assert evidence[0]["document"] == "the woman retired therefore she got her pension"
    review = step.review(frame)
    assert review.schema == REVIEW_SCHEMA
    assert review.select("document", "benchmark", "item", "detector").row(0) == (
        "d1",
        "quiz",
        "quiz:n2",
        "overlap",
    )
    unchecked = step.unchecked()
    assert unchecked.select("item", "detector").rows() == [
        ("quiz:n3", "not_checkable"),
        ("quiz:n4", "not_checkable"),
    ]
    said: list[str] = []
    step.prepare(said.append)
    assert said == ["decontamination: 5 items of quiz; 2 are too short to be looked for"]


def test_choices(tmp_path: Path) -> None:
    path = tmp_path / "items.csv"
    pl.DataFrame({"q": ["Sunlight is the source of energy for"], "id": ["x"]}).write_csv(path)
    rows = [
        {"q": "Where does water freeze first", "c": {"text": ["on the lake", "in the river", "under ground"]}}
    ]
    other = tmp_path / "items.parquet"
    pl.DataFrame(rows).write_parquet(other)
    step = Decontamination(
        {
            "a": {"path": str(path), "text": ["q"], "id": "id"},
            "b": {"path": str(other), "text": ["q", "c.text"]},
        }
    )
    texts = [
        "Where does water freeze first? A. on the lake B. in the river C. under ground",
        "Where does water freeze first? In the river.",
        "Where does the water come from? Nobody knows.",
        "Sunlight is the source of energy for plants",
    ]
    assert judge(step, corpus(texts))["match"].to_list() == ["b:0", "b:0", None, "a:x"]


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"text": ["q"]}, "benchmarks.b.path"),
        ({"path": "none.jsonl", "text": ["q"]}, "benchmarks.b.path"),
        ({"path": "items.jsonl"}, "benchmarks.b.text"),
        ({"path": "items.jsonl", "text": ["question"]}, "benchmarks.b.text"),
        ({"path": "items.jsonl", "text": ["q"], "id": "key"}, "benchmarks.b.id"),
        ({"path": "items.jsonl", "text": ["q"], "name": "x"}, "benchmarks.b.name"),
        ({"path": "broken.json", "text": ["q"]}, "benchmarks.b.path"),
        ({"path": "numbers.json", "text": ["q"]}, "benchmarks.b.path"),
        ("items.jsonl", "benchmarks.b"),
    ],
)
def test_mistakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: Any, key: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("items.jsonl").write_text('{"q": "one two three four five six"}\n')
    Path("broken.json").write_text('[{"q": ')
    Path("numbers.json").write_text("[1, 2]")
    with pytest.raises(ConfigError) as caught:
        Decontamination({"b": settings}).prepare(lambda _: None)
    assert caught.value.key == key


def test_forms_of_files(tmp_path: Path) -> None:
    rows = [{"q": "one, two", "n": 1}, {"q": 'three "four"', "n": 2}]
    frame = pl.DataFrame(rows)
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "a.json").write_text(json.dumps(rows))
    frame.write_csv(tmp_path / "a.csv")
    frame.write_csv(tmp_path / "a.tsv", separator="\t")
    frame.write_parquet(tmp_path / "a.parquet")
    for path in list(tmp_path.iterdir()):
        (tmp_path / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
    read = [read_items("x", {"path": str(path), "text": ["q", "n"]}) for path in sorted(tmp_path.iterdir())]
    assert len(read) == 10
    assert all(items == read[0] for items in read)
    assert [item.forms() for item in read[0]] == [("one, two 1",), ('three "four" 2',)]


# ----------------------------------------------------------------------------- the index against plain Python


def aligned(form: list[str], shares: list[float], text: list[str]) -> float:
    """Best score over all alignments, by the recurrence word by word."""
    gap = _GAP / len(form)
    rows = [[0.0] * (len(text) + 1) for _ in range(len(form) + 1)]
    for i in range(1, len(form) + 1):
        for j in range(len(text) + 1):
            best = rows[i - 1][j]
            if j:
                here = shares[i - 1] if form[i - 1] == text[j - 1] else 0.0
                best = max(best, rows[i - 1][j - 1] + here, rows[i][j - 1] - gap)
            rows[i][j] = best
    return max(rows[-1])


few = st.lists(st.sampled_from("abcdef"), min_size=5, max_size=12)


@given(few, few)
def test_alignment(form: list[str], text: list[str]) -> None:
    index = OverlapIndex([[" ".join(form)]], 13)
    ids = index.vocabulary.number(pl.Series([text])).ids
    score, begin, end = index._align(0, ids, 0, len(ids))
    assert score == pytest.approx(aligned(form, list(index.shares), text))
    assert aligned(form, list(index.shares), text[begin:end]) == pytest.approx(score)
    assert index.shares.sum() == pytest.approx(1)


@given(st.lists(st.lists(st.sampled_from("abc"), max_size=9), min_size=1, max_size=6), st.integers(1, 4))
def test_grams_and_runs_stay_in_their_text(texts: list[list[str]], n: int) -> None:
    numbered = Vocabulary(pl.Series([["a"], ["b"]])).number(pl.Series(texts, dtype=pl.List(pl.String)))
    flat = [(text, place, word) for text, own in enumerate(texts) for place, word in enumerate(own)]
    expected = [
        at
        for at in range(len(flat) - n + 1)
        if len({text for text, _, _ in flat[at : at + n]}) == 1
        and all(w != "c" for _, _, w in flat[at : at + n])
    ]
    places, codes = numbered.runs(n)
    assert places.tolist() == expected
    grams_at, grams = numbered.grams(tuple(range(n)), 3)
    assert grams_at.tolist() == expected
    words_at = ["".join(word for _, _, word in flat[at : at + n]) for at in expected]
    assert len(set(codes.tolist())) == len(set(grams.tolist())) == len(set(words_at))


@given(st.lists(st.integers(0, 2**62)), st.lists(st.integers(0, 2**62)))
def test_lookup(known: list[int], asked: list[int]) -> None:
    codes = np.unique(np.array(known, np.int64))
    which, at = Lookup(codes).find(np.array([*asked, *known], np.int64))
    found = dict(zip(which.tolist(), at.tolist(), strict=True))
    for place, code in enumerate([*asked, *known]):
        assert (place in found) == (code in known)
        assert place not in found or codes[found[place]] == code


def test_each_document_alone_and_among_others() -> None:
    rng = random.Random(0)
    vocabulary = [f"w{number}" for number in range(2000)]

    def some(n: int) -> list[str]:
        return [rng.choice(vocabulary) for _ in range(n)]

    items = [some(rng.choice([6, 9, 14, 25, 60])) for _ in range(40)]
    documents = []
    for _ in range(80):
        words = some(rng.randrange(30))
        for item in rng.sample(items, 3) * 2:
            words += [rng.choice([word, word, word, word, "", rng.choice(vocabulary)]) for word in item]
            words += some(rng.randrange(6))
        documents.append(" ".join(words))
    index = OverlapIndex([[" ".join(item)] for item in items], 13)
    texts = pl.Series(documents)
    alone = [next(iter(index.search(texts[number : number + 1]))) for number in range(len(texts))]

    def told(found: list[tuple[Match, str, str]]) -> list[tuple[object, ...]]:
        return [(match.score, match.verbatim, match.form, words) for match, words, _ in found]

    assert [told(one) for one in index.search(texts)] == [told(one) for one in alone]


def test_words() -> None:
    text = "Don\u2019t  DON'T naïve ﬁne 日本 1,000 half-way\n_x_"
    assert words(pl.Series([text, "", None, "plain"])).to_list() == [
        ["dont", "dont", "naive", "fine", "日", "本", "1", "000", "half", "way", "x"],
        [],
        [],
        ["plain"],
    ]


def test_what_is_planted_is_found(shared_dir: Path, tmp_path: Path) -> None:
    evals = "small-evals"
    planted = PlantedItems(
        str(shared_dir / "data"),
        clean=["wikitext-2", "c4-demo", "english-prose/moby-dick.txt.gz", "english-prose/bleak-house.txt.gz"],
        benchmarks={
            "gsm8k": {"path": "gsm8k/test.jsonl.gz", "text": ["question", "answer"]},
            "copa": {"path": f"{evals}/copa.jsonl", "text": ["query", "choices"]},
            "openbook_qa": {"path": f"{evals}/openbook_qa.jsonl", "text": ["query", "choices"]},
            "svamp": {"path": f"{evals}/svamp.jsonl", "text": ["context", "answer"]},
        },
        n_documents=2000,
        n_plants=100,
    )
    run = Run(tmp_path / "run", seed=0)
    metrics = planted.measure(run)
    missed = json.loads((tmp_path / "run" / "tables" / "missed.json").read_text())["rows"]
    assert missed == []
    assert metrics["found_verbatim"] == metrics["found_edited"] == metrics["found_split"] == 1.0
    assert metrics["false_positive_rate"] <= 0.001

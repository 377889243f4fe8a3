from __future__ import annotations

import random
from itertools import combinations
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from llm.curation import band_notes, verification
from llm.curation.base import Corpus, judge
from llm.curation.near_dedup import NearDedup
from llm.curation.near_duplicates import jaccard, shingles
from llm.types import ConfigError
from tests.curation.shards import in_shards
from tests.curation.test_steps import corpus

WORDS = [f"w{number}" for number in range(400)]


def changed(text: str, n_words: int, choice: random.Random) -> str:
    words = text.split()
    for place in choice.sample(range(len(words)), n_words):
        words[place] = choice.choice(WORDS)
    return " ".join(words)


def families(seed: int, n_families: int = 60) -> list[str]:
    """Texts, changed copies of them, and changed copies of those."""
    choice, texts = random.Random(seed), []
    for _ in range(n_families):
        texts.append(" ".join(choice.choices(WORDS, k=choice.randrange(60, 120))))
        for _ in range(choice.randrange(4)):
            texts.append(changed(choice.choice(texts[-2:]), choice.randrange(8), choice))
    choice.shuffle(texts)
    return texts


def brute_force(texts: list[str], threshold: float, n_words: int) -> list[list[int]]:
    """Clusters of more than one text, by comparing all pairs."""
    sets = [shingles(text, n_words) for text in texts]
    groups = {number: {number} for number in range(len(texts))}
    for one, other in combinations(range(len(texts)), 2):
        if jaccard(sets[one], sets[other]) >= threshold:
            merged = groups[one] | groups[other]
            groups |= dict.fromkeys(merged, merged)
    return [sorted(group) for number, group in groups.items() if number == min(group) and len(group) > 1]


@pytest.mark.parametrize("seed", range(3))
def test_clusters_against_all_pairs(seed: int):
    texts = families(seed)
    clusters = brute_force(texts, 0.8, 3)
    assert len(clusters) > 15
    judged = judge(NearDedup(0.8, length=3, keep="first"), corpus(texts))
    expected = {f"d{one}": f"d{group[0]}" for group in clusters for one in group[1:]}
    gone = judged.filter(~pl.col("keep"))
    assert dict(gone.select("id", "match").iter_rows()) == expected
    assert set(gone["reason"]) == {"near_duplicate"}
    sets = {f"d{number}": shingles(text, 3) for number, text in enumerate(texts)}
    n_direct = 0
    for one, match, score in gone.select("id", "match", "score").iter_rows():
        similarities = [jaccard(sets[one], sets[other]) for other in sets if other != one]
        assert score >= 0.8
        assert score in similarities
        direct = jaccard(sets[one], sets[match])
        n_direct += direct >= 0.8
        # what stays is not compared with all of a cluster's documents, once they are known to belong to it
        assert score == direct or direct < max(similarities)
    assert n_direct > 0.8 * gone.height


@pytest.mark.parametrize("keep", ["first", "longest", "best"])
def test_decisions_do_not_depend_on_shards(keep: str):
    texts = families(7, 40)
    frame = corpus(texts).with_columns(quality=pl.Series(np.random.default_rng(0).integers(0, 9, len(texts))))
    step = NearDedup(0.7, length=2, keep=keep, column="quality" if keep == "best" else None)  # type: ignore[arg-type]
    whole = in_shards(step, frame, 1)
    assert whole["keep"].sum() < frame.height - 20
    for n_shards in (2, 7):
        assert in_shards(step, frame, n_shards).equals(whole)


def test_which_one_stays():
    choice = random.Random(0)
    base = " ".join(choice.choices(WORDS, k=100))
    texts = ["another text", base, changed(base, 1, choice), f"{base} and more", f"{base} and mere"]
    frame = corpus(texts).with_columns(quality=pl.Series([9.0, 0.1, None, float("nan"), 0.1]))
    kept = {
        keep: judge(NearDedup(keep=keep, column=column), frame).filter("keep")["id"].to_list()  # type: ignore[arg-type]
        for keep, column in (("first", None), ("longest", None), ("best", "quality"))
    }
    assert kept == {"first": ["d0", "d1"], "longest": ["d0", "d3"], "best": ["d0", "d1"]}
    best = frame.with_columns(quality=pl.Series([9, -5, -7, -3, -2]))
    assert judge(NearDedup(keep="best", column="quality"), best).filter("keep")["id"].to_list() == [
        "d0",
        "d4",
    ]


def test_a_chain_is_one_cluster():
    words = random.Random(0).sample(WORDS, 300)
    texts = [" ".join(words[start : start + 100]) for start in (0, 10, 20)]  # 0.8, 0.8 and 0.64 alike
    judged = judge(NearDedup(0.75, length=3, keep="first"), corpus(texts))
    assert judged["match"].to_list() == [None, "d0", "d0"]
    assert judged["score"].to_list()[1:] == [pytest.approx(88 / 108)] * 2, "the last one through the second"
    middle = judge(NearDedup(0.75, length=3, keep="first"), corpus([texts[i] for i in (1, 0, 2)]))
    assert middle["score"].to_list()[1:] == [pytest.approx(88 / 108)] * 2


def test_thousands_of_copies_are_not_compared_with_each_other(monkeypatch):
    choice = random.Random(0)
    page = " ".join(choice.choices(WORDS, k=80))
    texts = [page] * 2000 + [f"{page} visitor {number}" for number in range(2000)]
    choice.shuffle(texts)
    compared = []
    actual = verification.jaccard_of_sets
    monkeypatch.setattr(verification, "jaccard_of_sets", lambda *sets: compared.append(1) or actual(*sets))
    judged = judge(NearDedup(), corpus(texts))
    assert judged["keep"].sum() == 1
    assert len(compared) < 4000
    scores = judged.filter(~pl.col("keep"))["score"]
    assert scores.min() >= 0.8


def test_many_that_share_only_a_part_stay(monkeypatch):
    choice = random.Random(0)
    frame = " ".join(choice.choices(WORDS, k=60))  # the same menu on every page
    texts = [f"{frame} {' '.join(choice.choices(WORDS, k=40))}" for _ in range(300)]
    texts.append(f"{texts[150]} more")
    compared = []
    actual = verification.jaccard_of_sets
    monkeypatch.setattr(verification, "jaccard_of_sets", lambda *sets: compared.append(1) or actual(*sets))
    judged = judge(NearDedup(length=3), corpus(texts))
    assert judged.filter(~pl.col("keep")).select("id", "match").rows() == [("d150", "d300")]
    assert len(compared) < 16 * 8 * 300


@pytest.mark.parametrize("unit", ["word", "character"])
def test_texts_of_all_kinds(unit: str):
    japanese = "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。"
    hindi = "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता और समानता प्राप्त है " * 2
    texts = ["", "", "...", "short", "Short!", "shorter"]
    texts += [japanese, japanese.replace("まだ", "もう"), hindi, hindi.replace("अधिकारों", "कर्तव्यों", 1)]
    judged = judge(NearDedup(0.6, unit, 3, keep="first"), corpus(texts))  # type: ignore[arg-type]
    expected = {"d4": "d3", "d7": "d6", "d9": "d8"}
    if unit == "character":
        expected["d5"] = "d3"  # sho hor ort of sho hor ort rte ter: 3 in 5
    assert dict(judged.filter(~pl.col("keep")).select("id", "match").iter_rows()) == expected
    assert judge(NearDedup(unit=unit), corpus([""]))["keep"].all()  # type: ignore[arg-type]


def test_mistakes():
    for arguments in ({"keep": "best"}, {"column": "quality"}):
        with pytest.raises(ConfigError) as caught:
            NearDedup(**arguments)
        assert caught.value.key == "column"
    with pytest.raises(ConfigError, match="another folder") as caught:
        NearDedup(index=["a", "b"], save_index="./b")
    assert caught.value.key == "save_index"
    step = NearDedup(keep="best", column="quality")
    with pytest.raises(ConfigError, match="there are: n_tokens"):
        judge(step, corpus(["a"]).with_columns(n_tokens=1))
    with pytest.raises(ConfigError, match="none"):
        judge(step, corpus(["a"]).with_columns(quality=pl.lit("high")))


# ----------------------------------------------------------------------------- indexes


def test_earlier_data_goes_before(tmp_path):
    texts = families(3, 30)
    earlier, later = (
        corpus(texts[::2]).with_columns(pl.concat_str(pl.lit("old-"), "id").alias("id")),
        texts[1::2],
    )
    first = in_shards(NearDedup(length=3, save_index=str(tmp_path / "index")), earlier, 3)
    step = NearDedup(length=3, index=str(tmp_path / "index"), save_index=str(tmp_path / "more"))
    said: list[str] = []
    step.prepare(said.append)
    assert said == [f"near_dedup: {first['keep'].sum()} documents in {tmp_path / 'index'}"]
    judged = in_shards(step, corpus(later), 2)
    assert judged.equals(in_shards(step, corpus(later), 1))
    # as if the documents of the index came first, without those that went then
    kept = first.filter("keep")
    sets = {one: shingles(text, 3) for one, text in kept.select("id", "text").iter_rows()}
    whole = [*kept["text"], *later]
    names = [*kept["id"], *corpus(later)["id"]]
    clusters = [[names[one] for one in group] for group in brute_force(whole, 0.8, 3)]
    gone = judged.filter(~pl.col("keep"))
    repeats = gone.filter(reason="near_duplicate_of_index")
    expected = {one for group in clusters if group[0] in sets for one in group if one not in sets}
    assert set(repeats["id"]) == expected
    assert len(expected) > 5
    n_direct = 0
    for text, match, score in repeats.select("text", "match", "score").iter_rows():
        similarities = {one: jaccard(shingles(text, 3), other) for one, other in sets.items()}
        if max(similarities.values()) >= 0.8:  # else it is like one that is like an earlier one
            n_direct += 1
            assert score == similarities[match] == max(similarities.values())
        assert match in sets
    assert n_direct > 5
    assert set(gone.filter(reason="near_duplicate")["match"]) <= set(judged.filter("keep")["id"])
    # and both indexes together leave nothing new in the same data
    both = NearDedup(length=3, index=[str(tmp_path / "index"), str(tmp_path / "more")])
    again = judge(both, corpus(later))
    assert not again["keep"].any()
    same = again.filter(pl.col("id").is_in(judged.filter("keep")["id"].to_list()))
    assert same["score"].to_list() == [1.0] * same.height
    assert both.fingerprint() != step.fingerprint()


def test_bands_read_one_by_one_decide_the_same(monkeypatch):
    frame = corpus(families(1, 30))
    whole = in_shards(NearDedup(length=3), frame, 2)
    monkeypatch.setattr(band_notes, "BANDS_BYTES", 1)
    assert in_shards(NearDedup(length=3), frame, 2).equals(whole)
    assert not whole["keep"].all()


def test_more_documents_than_there_are_numbers(monkeypatch):
    monkeypatch.setattr(band_notes, "_height", lambda *_: 1 << 31)
    three = Corpus([Path("shard")] * 3, [Path("notes")] * 3, Path("scratch"))
    with pytest.raises(ConfigError, match=r"6,442,450,944 documents") as caught:
        NearDedup().decide(three)
    assert caught.value.key == "curation.sources"

"""Mixtures: the shares they reach, the same for every cut into shards, and what their users mistake."""

from __future__ import annotations

import math
import pickle
import random
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from llm.config import build, compose
from llm.curation.base import Corpus, CorpusStep, judge, order_key
from llm.curation.mixture import DomainMixture, Mixture
from llm.curation.unimax import UniMaxMixture
from llm.types import ConfigError


def documents(n: int = 600, languages: tuple[str | None, ...] = ("en", "de", None)) -> pl.DataFrame:
    """Domain a is twice as large as b, and c is rare; three sevenths are of the first language."""
    domains = ["c" if i % 60 == 59 else "a" if i % 6 < 4 else "b" for i in range(n)]
    return pl.DataFrame(
        {
            "id": [f"d{i}" for i in range(n)],
            "text": [f"{i} " + "ä" * (i % 7) for i in range(n)],
            "domain": domains,
            "language": [languages[i % 7 % len(languages)] for i in range(n)],
        },
        schema_overrides={"language": pl.String},
    )


def in_shards(step: Mixture, frame: pl.DataFrame, folder: Path, size: int) -> pl.DataFrame:
    """What the runner does: survey, decide and apply, with the step pickled in between."""
    assert isinstance(step, CorpusStep)
    shards, surveys = [], []
    for number, part in enumerate(frame.iter_slices(size)):
        shards.append(folder / f"shard{number}")
        surveys.append(folder / f"survey{number}")
        part.write_parquet(shards[-1])
        pickle.loads(pickle.dumps(step)).survey(part).write_parquet(surveys[-1])
    decisions = step.decide(Corpus(shards, surveys, folder))
    assert set(decisions["copies"]).isdisjoint({1}), "what stays as it is needs no decision"
    found = []
    for number, part in enumerate(frame.iter_slices(size)):
        mine = decisions.filter(pl.col("shard") == number).drop("shard").sort("row")
        found.append(step.apply(part, mine))
    return pl.concat(found)


def by_hand(
    frame: pl.DataFrame, groups: list[Any], targets: dict[Any, float], seed: int, most: int
) -> list[int]:
    """Copies of each document, in plain Python: passes over the group, then the first of its order."""
    sizes = [len(text.encode()) for text in frame["text"]]
    copies = [0] * frame.height
    for group, target in targets.items():
        members = [row for row in range(frame.height) if groups[row] == group]
        members.sort(key=lambda row: order_key(seed, "mixture", frame["id"][row]))
        whole = sum(sizes[row] for row in members)
        passes, until = math.floor(target / whole), 0
        for row in members:
            until += sizes[row]
            copies[row] = min(most, passes + (until <= target - passes * whole + 1e-6))
    return copies


@pytest.mark.parametrize("size", [600, 101, 1])
@pytest.mark.parametrize(("most", "seed"), [(1, 0), (4, 3)])
def test_the_same_documents_whatever_the_shards(tmp_path: Path, size: int, most: int, seed: int) -> None:
    frame = documents(120 if size == 1 else 600)
    weights = {"a": 1.0, "b": 2.0, "c": 0.25}
    sizes = {d: frame.filter(domain=d)["text"].str.len_bytes().sum() for d in weights}
    limits = [most * sizes[d] * 3.25 / w for d, w in weights.items()]
    total = min([*limits, sum(sizes.values())] if most > 1 else limits)
    targets = {d: w / 3.25 * total for d, w in weights.items()}
    judged = in_shards(DomainMixture(weights, most, seed), frame, tmp_path, size)
    want = by_hand(frame, frame["domain"].to_list(), targets, seed, most)
    assert judged["copies"].to_list() == want
    assert judged.schema["copies"] == pl.Int64
    assert (0 in want, max(want) > 1) == (True, most > 1)
    assert judged.select(frame.columns).equals(frame)
    for n, keep, reason, score in judged.select("copies", "keep", "reason", "score").iter_rows():
        assert keep == (n > 0)
        assert reason == {0: "down_sampled", 1: None}.get(n, "repeated")
        assert (score is None) == (n == 1)


def test_a_group_that_limits_the_total_is_kept_whole() -> None:
    rng = random.Random(0)
    for _ in range(300):
        sizes = {name: rng.randrange(10**11, 10**12) for name in "abcde"}
        step = DomainMixture({name: rng.random() for name in sizes})
        targets = step.targets({(name,): size for name, size in sizes.items()})
        [limiting] = [name for name, size in sizes.items() if targets[(name,)] > size * (1 - 1e-9)]
        n_bytes = sizes[limiting]
        # as notes have at most 4 GB of one document, a hundred of them
        parts = [n_bytes // 300] * 299 + [n_bytes - n_bytes // 300 * 299]
        members = pl.DataFrame({"shard": 0, "row": range(300), "order": range(300), "n_bytes": parts})
        assert step._copies(members, targets[(limiting,)], n_bytes).is_empty()


def test_a_group_that_costs_more_than_half_is_named(tmp_path: Path) -> None:
    frame = pl.DataFrame({"id": list("abcdefgh"), "text": ["1234"] * 8, "domain": ["much"] * 7 + ["rare"]})
    for weights, said in (
        (
            {"much": 1, "rare": 1},
            "mixture: 0.25 of the bytes stay, as many as rare allows with max_repeats=1",
        ),
        ({"much": 7, "rare": 1}, None),
        ({"much": 0, "rare": 1}, None),
    ):
        step, lines = DomainMixture(weights), list[str]()
        frame.write_parquet(tmp_path / "shard")
        step.survey(frame).write_parquet(tmp_path / "survey")
        step.decide(Corpus([tmp_path / "shard"], [tmp_path / "survey"], tmp_path, say=lines.append))
        assert [line.rpartition(":")[0] for line in lines] == ([said] if said else [])
    budget = UniMaxMixture(budget_bytes=8, by="domain")
    assert budget.note({("a",): 100, ("b",): 1}, {("a",): 6.0, ("b",): 2.0}) is None


def test_a_group_may_be_named_by_a_number() -> None:
    frame = documents(60).with_columns((pl.int_range(60) % 2 + 2020).alias("year"))
    judged = judge(DomainMixture({2020: 1, 2021: 0}, by="year"), frame)
    assert judged["keep"].to_list() == [True, False] * 30
    nested = {"year": {2020: 1, 2021: 0}, "domain": {"a": 1, "b": 1, "c": 1}}
    left = judge(DomainMixture(nested, by=["year", "domain"]), frame).filter("keep")
    assert left["year"].unique().to_list() == [2020]


def shares(judged: pl.DataFrame, *columns: str) -> dict[str, float]:
    """Of the bytes with all copies, by the values of the columns joined."""
    name = pl.concat_str(pl.col(columns).fill_null("unknown"), separator="/").alias("name")
    sizes = judged.group_by(name).agg((pl.col("text").str.len_bytes() * pl.col("copies")).sum().alias("n"))
    return {name: n / sizes["n"].sum() for name, n in sizes.iter_rows()}


def test_languages_are_balanced_and_what_has_none_is_a_group_too() -> None:
    step = DomainMixture({"en": 3, "de": 1, "unknown": 1}, by="language")
    found = shares(judge(step, documents(3000)), "language")
    assert found == pytest.approx({"en": 0.6, "de": 0.2, "unknown": 0.2}, abs=0.01)


def test_domains_and_languages_together_by_joined_names() -> None:
    frame = documents(3000, ("en", "de"))
    weights = {"a/en": 1, "a/de": 2, "b/en": 3, "b/de": 0, "c/en": 1, "c/de": 1}
    judged = judge(DomainMixture(weights, by=["domain", "language"], max_repeats=9), frame)
    found = shares(judged, "domain", "language")
    assert found == pytest.approx({name: w / 8 for name, w in weights.items()}, abs=0.02)


def test_weights_for_each_column_keep_the_first_exact_and_divide_it_by_the_next() -> None:
    # c has no German: its share, a tenth, is all English; the others are divided three to one.
    frame = documents(6000, ("en", "de")).filter((pl.col("domain") != "c") | (pl.col("language") == "en"))
    weights = {"domain": {"a": 6, "b": 3, "c": 1}, "language": {"en": 3, "de": 1}}
    judged = judge(DomainMixture(weights, by=["domain", "language"], max_repeats=9), frame)
    assert shares(judged, "domain") == pytest.approx({"a": 0.6, "b": 0.3, "c": 0.1}, abs=0.01)
    want = {"a/en": 0.45, "a/de": 0.15, "b/en": 0.225, "b/de": 0.075, "c/en": 0.1}
    assert shares(judged, "domain", "language") == pytest.approx(want, abs=0.01)


@pytest.mark.parametrize(
    ("arguments", "key", "mend"),
    [
        ({"weights": {"a": 1, "b": 1}}, "weights", "lacks the group 'c'"),
        ({"weights": {"a": 1, "b": 1, "c": 0, "d": 0}}, "weights.d", "it has a, b, c"),
        ({"weights": {"a": 1}, "by": "topic"}, "by", "no such column"),
        ({"weights": {"a": 1}, "by": []}, "by", "must be a column"),
        ({"weights": {"a": -1}}, "weights.a", "0 or more"),
        ({"weights": {"a": True}}, "weights.a", "0 or more"),
        ({"weights": {"a": 0}}, "weights", "at least one"),
        ({"weights": {"domain": {"a": 1}}, "by": ["domain", "language"]}, "weights", "domain, language"),
        ({"weights": {"domain": {"a": 1}, "language": 1}, "by": ["domain", "language"]}, "weights.language",
         "must be weights"),
        ({"weights": {"domain": {"a": 1, "b": 1, "c": 1}, "language": {"en": 0, "de": 1, "unknown": 0}},
          "by": ["domain", "language"]}, "weights.language", "all are 0 that occur in c"),
        ({"weights": {"domain": {"a": 1, "b": 1}, "language": {"en": 1, "de": 1, "unknown": 1}},
          "by": ["domain", "language"]}, "weights.domain", "lacks the group 'c'"),
    ],
)  # fmt: skip
def test_mistakes(arguments: dict[str, Any], key: str, mend: str) -> None:
    frame = documents().with_columns(
        pl.when(pl.col("domain") == "c").then(pl.lit("en")).otherwise("language").alias("language")
    )
    with pytest.raises(ConfigError, match=mend) as caught:
        judge(DomainMixture(**arguments), frame)
    assert caught.value.key == key


def test_a_column_named_copies_is_overwritten_and_nothing_is_left_behind() -> None:
    frame = documents(60).with_columns(pl.lit("x").alias("copies"), pl.lit(1.0).alias("score"))
    judged = judge(DomainMixture({"a": 1, "b": 1, "c": 1}), frame)
    assert judged.schema["copies"] == pl.Int64
    assert sorted(judged.columns) == sorted({*frame.columns, "keep", "reason", "match"})


CONF = Path(__file__).resolve().parents[2] / "conf" / "curation" / "mixture"


@pytest.mark.parametrize("path", sorted(CONF.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_scheme_is_such_a_step(path: Path, tmp_path: Path) -> None:
    weights = tmp_path / "weights.json"
    weights.write_text('{"weights": {"a": 1, "b": 3, "c": 1}}')
    given = {"domains": "weights={a:1,b:3,c:1}", "doremi": f"path={weights}"}.get(path.stem, "by=domain")
    chosen = f"+curation/mixture@curation.mixture={path.stem}"
    composed = compose(["task=curate", chosen, f"curation.mixture.{given}"])
    step = build(composed.curation.mixture)
    frame = documents()
    whole = judge(step, frame)
    assert {0, 1} & set(whole["copies"])
    assert set(whole["copies"]) != {1}
    assert whole.equals(in_shards(step, frame, tmp_path, 97))
    assert whole["copies"].max() <= step.max_repeats

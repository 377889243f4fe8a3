"""The contract of every curation step, found by its yaml file, and what each of ours decides."""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path

import polars as pl
import pytest
from omegaconf import OmegaConf

from llm.config import build
from llm.curation.base import DOCUMENT_COLUMNS, VERDICT_COLUMNS, Tagger, judge
from llm.curation.language import Language
from llm.curation.ledger import account
from llm.curation.mixture import DomainMixture
from llm.curation.pipeline import described
from llm.curation.quality import GopherQuality
from llm.types import ConfigError
from tests.curation.given import fill

FOLDER = Path(__file__).resolve().parents[2] / "conf" / "curation" / "step"

PROSE = (
    "The members of the committee have agreed that the plan is to be carried out with care, and that the "
    "cost of it will be shared by all of the people who have an interest in the matter. It will be a long "
    "time before the results can be seen, but the work has begun and will go on to its end without delay. "
)


def corpus(texts: list[str], domains: list[str] | None = None) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "id": [f"d{i}" for i in range(len(texts))],
            "text": texts,
            "source": ["s"] * len(texts),
            "domain": domains or ["text"] * len(texts),
            "licence": [None] * len(texts),
            "provenance": [f"s:{i + 1}" for i in range(len(texts))],
        },
        schema=dict.fromkeys(DOCUMENT_COLUMNS, pl.String),
    )


MIXED = [
    "",
    " ",
    "!!!",
    "short",
    PROSE,
    PROSE.upper(),
    PROSE * 3,
    "# " * 100,
    "a\0b",
    "日本語の文章です。",
    "…\n" * 9,
]


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
@pytest.mark.parametrize("texts", [MIXED, [PROSE], []], ids=["mixed", "one", "none"])
def test_contract(path: Path, texts: list[str], monkeypatch, tmp_path):
    config = OmegaConf.load(path)
    if "missing" in config:
        # no network in a test: a step that needs a model must also live without it
        monkeypatch.setattr("llm.classifiers.language.locate", _nowhere)
        config.missing = "skip"
    fill(config, tmp_path)
    assert path.read_text().startswith("# ")
    step = build(config)
    if hasattr(step, "prepare"):
        step.prepare(lambda _: None)
    step = pickle.loads(pickle.dumps(step))  # it may work in another process
    frame = corpus(texts)
    judged = judge(step, frame)
    assert set(frame.columns) | set(VERDICT_COLUMNS) <= set(judged.columns)
    assert not [name for name in judged.columns if name.startswith("_")], "a step's own columns must go"
    others = [name for name in frame.columns if name != "text"]
    assert judged.select(others).equals(frame.select(others)), "of a document, a step alters its text alone"
    assert judged.schema["keep"] == pl.Boolean
    assert judged["keep"].null_count() == 0
    altered = judged["text"].ne_missing(frame["text"])
    assert judged.filter(altered | ~pl.col("keep"))["reason"].null_count() == 0, "what is done has a reason"
    assert judged.filter(~altered & pl.col("keep"))["reason"].drop_nulls().is_empty(), "and nothing else has"
    assert judged.equals(judge(build(config), frame)), "the same twice"
    if isinstance(step, Tagger):
        tagged = step.tag(frame["text"])
        assert dict(tagged.schema) == dict(step.attributes)
        assert tagged.height == frame.height
        assert json.loads(json.dumps(step.tag_key())) == step.tag_key()


def _nowhere(path):
    raise ConfigError("path", path, "no model here")


BROKEN = {
    "too_few_words": "to be that have " * 5,
    "words_too_short": "I be a of to is it an " * 20,
    "words_too_long": "the be internationalisation straightforwardness misunderstanding " * 20,
    "hash_signs": PROSE + "#tagged " * 30,
    "ellipses": PROSE + "more... " * 30,
    "bullet_lines": "\n".join(f"- {PROSE} {i}" for i in range(10)),
    "ellipsis_lines": "\n".join(f"{PROSE} {i} and so on..." for i in range(4)),
    "few_alphabetic_words": PROSE + "123456 " * 60,
    "few_stop_words": "red green blue yellow " * 20,
    "duplicate_lines": "\n".join(f"{PROSE} {i}" for i in range(4)) + "\nagain\nagain\nagain\nagain\nagain",
    "duplicate_line_chars": PROSE + "one\n" + "\n".join(f"line {i}" for i in range(9)) + f"\n{PROSE}one",
    "too_many_words": PROSE * 2,
}


@pytest.mark.parametrize("reason", sorted(BROKEN))
def test_quality_names_the_rule(reason: str):
    settings = {"max_words": 100} if reason == "too_many_words" else {}
    judged = GopherQuality(**settings).annotate(corpus([BROKEN[reason], PROSE]).lazy()).collect()
    assert judged["reason"].to_list() == [reason, None]
    assert judged["keep"].to_list() == [False, True]
    assert judged["score"][0] is not None


def test_quality_paragraphs():
    text = "\n\n".join([PROSE + "x", *(f"{i} " + PROSE[:60] for i in range(3)), "end", "end", "end"])
    judged = GopherQuality(max_duplicate_lines=1, max_duplicate_paragraphs=0.2).annotate(
        corpus([text]).lazy()
    )
    assert judged.collect().select("reason", "score").row(0) == ("duplicate_paragraphs", pytest.approx(2 / 7))


def test_quality_measures_against_plain_python():
    texts = [PROSE, PROSE + "# 12 34 ...", "- a list\n- of lines\nand the rest…\n\nto be"]

    def words(text: str) -> list[str]:
        return re.findall(r"\w+", text)

    def tokens(text: str) -> list[str]:
        return re.findall(r"\w+|\.+|[^\w\s]", text)

    # every bound out of reach in turn: the score is then the measure of that rule
    measured = {
        "max_words": (0, lambda t: len(words(t))),
        "min_mean_word_length": (9.9, lambda t: sum(map(len, words(t))) / len(words(t))),
        "max_bullet_lines": (
            0.0,
            lambda t: (
                sum(line.lstrip().startswith("-") for line in t.split("\n") if line.strip())
                / sum(bool(line.strip()) for line in t.split("\n"))
            ),
        ),
        "min_alphabetic_words": (
            1.0,
            lambda t: sum(any(c.isalpha() for c in w) for w in words(t)) / len(tokens(t)),
        ),
    }
    relaxed = {
        "min_words": 0,
        "min_mean_word_length": 0.0,
        "max_symbol_word_ratio": 9.0,
        "max_bullet_lines": 1.0,
        "max_ellipsis_lines": 1.0,
        "min_alphabetic_words": 0.0,
        "min_stop_words": 0,
    }
    for name, (bound, reference) in measured.items():
        frame = GopherQuality(**{**relaxed, name: bound}).annotate(corpus(texts).lazy()).collect()
        for text, score in zip(texts, frame["score"], strict=True):
            assert score is None or score == pytest.approx(reference(text)), name
        assert frame["score"].null_count() < len(texts), name


def test_quality_leaves_other_domains_and_checks_bounds():
    judged = GopherQuality(except_domains=["code"]).annotate(
        corpus(["x = 1", "x = 1"], ["code", "text"]).lazy()
    )
    assert judged.collect()["keep"].to_list() == [True, False]
    with pytest.raises(ConfigError) as caught:
        GopherQuality(min_words=10, max_words=5)
    assert caught.value.key == "min_words"


def shares(frame: pl.DataFrame) -> dict[str, float]:
    sizes = frame.group_by("domain").agg(pl.col("text").str.len_bytes().sum().alias("b"))
    total = sizes["b"].sum()
    return {domain: size / total for domain, size in sizes.iter_rows()}


def two_domains() -> pl.DataFrame:
    texts = [f"{i:03} " + "x" * (i % 7) for i in range(1000)]
    return corpus(texts, ["a" if i < 900 else "b" for i in range(1000)])


def mixed(step: DomainMixture) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The documents as often as they stand in the result, and the ledger."""
    frame = two_domains()
    kept, entries, counts = account("mixture", frame, judge(step, frame))
    assert counts.documents_out - entries["change"].sum() == counts.documents_in == 1000
    assert kept["copies"].sum() == counts.documents_out
    return kept.select(pl.exclude("copies").repeat_by("copies").explode()), entries


def test_mixture_reaches_the_shares_by_leaving_out():
    kept, entries = mixed(DomainMixture({"a": 1, "b": 1}))
    assert shares(kept) == pytest.approx({"a": 0.5, "b": 0.5}, abs=0.01)
    assert kept.filter(pl.col("domain") == "b").height == 100, "the scarcest domain stays whole"
    assert set(entries["reason"]) == {"down_sampled"}


def test_mixture_repeats_up_to_the_limit():
    kept, entries = mixed(DomainMixture({"a": 3, "b": 1}, max_repeats=4))
    assert shares(kept) == pytest.approx({"a": 0.75, "b": 0.25}, abs=0.01)
    repeated = entries.filter(pl.col("reason") == "repeated")
    assert repeated["change"].min() > 0
    assert set(repeated["domain"]) == {"b"}


def test_mixture_is_a_function_of_its_seed():
    first, again, other = (
        DomainMixture({"a": 1, "b": 1}, seed=seed).annotate(two_domains().lazy()).collect()["keep"]
        for seed in (0, 0, 1)
    )
    assert first.equals(again)
    assert not first.equals(other)


@pytest.mark.parametrize(
    ("weights", "key"),
    [
        ({"a": 1}, "weights"),
        ({"a": 1, "b": 1, "c": 1}, "weights.c"),
        ({"a": -1, "b": 1}, "weights.a"),
        ({"a": 0}, "weights"),
    ],
)
def test_mixture_bad_weights(weights: dict[str, float], key: str):
    with pytest.raises(ConfigError) as caught:
        DomainMixture(weights).annotate(two_domains().lazy())
    assert caught.value.key == key


def test_languages_are_codes():
    with pytest.raises(ConfigError, match="ISO 639") as caught:
        Language(["english"])
    assert (caught.value.key, caught.value.value) == ("languages", "english")


def test_ledger_refuses_a_step_that_loses_rows_or_reasons():
    frame = corpus(["a", "b"])

    def silent(documents: pl.LazyFrame) -> pl.LazyFrame:
        nothing = pl.lit(None, pl.String)
        return documents.with_columns(
            pl.lit(False).alias("keep"),
            nothing.alias("reason"),
            pl.lit(None, pl.Float64).alias("score"),
            nothing.alias("match"),
        )

    with pytest.raises(AssertionError, match="without a reason"):
        account("silent", frame, silent(frame.lazy()).collect())
    with pytest.raises(AssertionError, match="adds or drops"):
        account("lossy", frame, silent(frame.lazy()).collect().head(1))


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_plan_knows_every_setting(path: Path, tmp_path: Path):
    """Work that was begun under other settings is not gone on with."""
    config = OmegaConf.load(path)
    fill(config, tmp_path)
    plain = described(build(config))
    assert json.loads(json.dumps(plain)) == plain
    assert plain == described(build(config))
    for name, value in config.items():
        if isinstance(value, bool) or name == "_target_" or not isinstance(value, int | float):
            continue
        for other in (value / 2, value + 1, value - 1):
            try:
                changed = build(OmegaConf.merge(config, {name: type(value)(other)}))
            except (ConfigError, ExceptionGroup):
                continue  # out of bounds
            if type(value)(other) != value:
                assert described(changed) != plain, name

"""task=curate: outputs whole, every document accounted for, equal bytes from equal input."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import polars as pl
import pytest

from llm.config import build, compose
from llm.curation.decontamination import Decontamination
from llm.curation.derive import DeriveQuestions
from llm.curation.embedded import EmbeddedCorpus
from llm.curation.exact_dedup import ExactDedup
from llm.curation.jsonl import JsonLines
from llm.curation.leaks import LeakRemoval
from llm.curation.mixture import DomainMixture
from llm.curation.output import OUTPUT_COLUMNS
from llm.curation.pii import Pii
from llm.curation.pipeline import Curation
from llm.curation.quality import GopherQuality
from llm.curation.questions import normalised
from llm.curation.split import HashSplit
from llm.curation.text import TextFiles
from llm.curation.word_list import WordList
from llm.runs.run import Run
from llm.tasks.curate import curate
from llm.types import ConfigError

OUTPUTS = ("train.parquet", "validation.parquet", "ledger.parquet", "summary.json", "run.log")
DERIVED = (
    "conversations_train.jsonl",
    "conversations_validation.jsonl",
    "preferences_train.jsonl",
    "preferences_validation.jsonl",
    "exam.jsonl",
)


def numpy_only() -> Curation:
    """The embedded corpus, small enough for a test."""
    return Curation(
        sources={"embedded": EmbeddedCorpus(["numpy"], max_source_bytes=200_000)},
        steps={"exact_dedup": ExactDedup()},
        split=HashSplit(0.3),
        leaks=LeakRemoval(),
        derive=DeriveQuestions(max_conversations=1000, validation_pairs=60, exam_questions=40),
    )


@pytest.fixture(scope="module")
def embedded(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("curate")
    curate(run=Run(folder), curation=numpy_only())
    return folder


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_embedded_outputs(embedded: Path):
    assert not [name for name in (*OUTPUTS, *DERIVED) if not (embedded / name).is_file()]
    assert not list(embedded.glob("*.partial"))
    train, validation = (pl.read_parquet(embedded / f"{side}.parquet") for side in ("train", "validation"))
    assert tuple(train.columns[: len(OUTPUT_COLUMNS)]) == OUTPUT_COLUMNS
    assert not set(train["group"]) & set(validation["group"]), "a module stands wholly on one side"
    assert (train["text"].str.len_bytes() == train["n_bytes"]).all()
    for row in lines(embedded / "conversations_train.jsonl"):
        assert [message["role"] for message in row["messages"]] == ["user", "assistant"]
        assert all(message["content"].strip() for message in row["messages"])
    for row in lines(embedded / "preferences_validation.jsonl"):
        assert set(row) == {"id", "prompt", "chosen", "rejected"}
        assert row["chosen"] != row["rejected"]
    for row in lines(embedded / "exam.jsonl"):
        assert set(row) == {"id", "question", "choices", "answer"}
        assert len(set(row["choices"])) == 4
        assert 0 <= row["answer"] < 4


def test_nothing_asked_of_validation_stands_in_training(embedded: Path):
    train = pl.read_parquet(embedded / "train.parquet")["text"].to_list()
    told = [m["content"] for row in lines(embedded / "conversations_train.jsonl") for m in row["messages"]]
    told += [row[k] for row in lines(embedded / "preferences_train.jsonl") for k in ("chosen", "rejected")]
    haystack = "\n".join(normalised(text) for text in (*train, *told))
    exam = lines(embedded / "exam.jsonl")
    asked = {row["choices"][row["answer"]] for row in exam}
    asked |= {row["chosen"] for row in lines(embedded / "preferences_validation.jsonl")}
    assert len(asked) > 30
    assert not [text for text in asked if normalised(text) in haystack]
    names = {row["question"].split("`")[1] for row in exam}
    assert not names & {row["id"].partition("#")[0] for row in lines(embedded / "conversations_train.jsonl")}


def test_bag_of_words_stays_weak(embedded: Path):
    baseline = json.loads((embedded / "summary.json").read_text())["baseline"]
    assert baseline["pairs_accuracy"] < 0.6
    assert baseline["exam_accuracy"] < 0.35
    for blind in ("length", "first_word"):
        assert baseline["by_name"][blind]["pairs_accuracy"] == pytest.approx(0.5)
        assert baseline["by_name"][blind]["exam_accuracy"] == pytest.approx(0.25)


def test_same_input_same_bytes(embedded: Path, tmp_path: Path):
    curate(run=Run(tmp_path), curation=numpy_only())
    for name in (*OUTPUTS, *DERIVED):
        first, second = (
            hashlib.sha256((folder / name).read_bytes()).hexdigest() for folder in (embedded, tmp_path)
        )
        assert first == second, name


def write_jsonl(path: Path, texts: list[str], domain: str) -> None:
    rows = [{"text": text, "domain": domain} for text in texts]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def test_every_document_is_accounted_for(tmp_path: Path):
    texts = [
        f"This is the text of number {i} and it has to be of some length, with words." for i in range(200)
    ]
    write_jsonl(tmp_path / "a.jsonl", [*texts, *texts[:20], "short"], "a")
    write_jsonl(
        tmp_path / "b.jsonl",
        [f"Other matter that has to be told of number {i} and the rest of it." for i in range(60)],
        "b",
    )
    curation = Curation(
        sources={
            "a": JsonLines(str(tmp_path / "a.jsonl"), domain_column="domain"),
            "b": JsonLines(str(tmp_path / "b.jsonl"), domain_column="domain"),
        },
        steps={"exact_dedup": ExactDedup(), "quality": GopherQuality(min_words=5)},
        split=HashSplit(0.1),
        mixture=DomainMixture({"a": 1, "b": 1}, max_repeats=2),
    )
    curate(run=Run(tmp_path / "out"), curation=curation)
    train, validation, ledger = (
        pl.read_parquet(tmp_path / "out" / f"{name}.parquet") for name in ("train", "validation", "ledger")
    )
    assert train.height + validation.height - ledger["change"].sum() == 281
    gone = ledger.filter(pl.col("change") < 0)
    removed, written = set(gone["id"]), set(train["id"]) | set(validation["id"])
    assert not removed & written
    assert len(removed | {one.partition("#copy")[0] for one in written}) == 281
    assert gone.filter(step="exact_dedup").height == 20
    assert gone.filter(step="exact_dedup")["match"].null_count() == 0
    assert gone.filter(step="quality").select("reason", "excerpt").row(0) == ("too_few_words", "short")
    sizes = train.group_by("domain").agg(pl.col("n_bytes").sum()).sort("domain")["n_bytes"]
    assert sizes[0] / sizes[1] == pytest.approx(1, abs=0.1)
    log = (tmp_path / "out" / "run.log").read_text()
    assert "exact_dedup: 281 -> 261 documents" in log
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["documents"]["read"] == 281
    assert summary["funnel"][2]["reasons"] == {"too_few_words": 1}


def test_near_duplicates_of_training_leave_validation(tmp_path: Path):
    base = " ".join(f"word{i}" for i in range(50))
    texts = [f"{base} ending {i}" for i in range(40)] + [f"{i} " * 60 for i in range(1000, 1060)]
    write_jsonl(tmp_path / "a.jsonl", texts, "a")
    source = JsonLines(str(tmp_path / "a.jsonl"))
    curate(
        run=Run(tmp_path / "out"),
        curation=Curation({"a": source}, split=HashSplit(0.3), leaks=LeakRemoval(0.5)),
    )
    validation = pl.read_parquet(tmp_path / "out" / "validation.parquet")
    assert validation.height > 5
    assert not validation["text"].str.contains("ending").any()
    ledger = pl.read_parquet(tmp_path / "out" / "ledger.parquet")
    assert ledger.filter(reason="near_duplicate_of_train")["score"].min() >= 0.5


def test_mistakes(tmp_path: Path):
    (tmp_path / "a.txt").write_text("only one")
    with pytest.raises(ConfigError) as caught:
        Curation({})
    assert caught.value.key == "sources"
    with pytest.raises(ConfigError) as caught:
        Curation({"a": TextFiles(str(tmp_path / "a.txt"))}, derive=DeriveQuestions())
    assert caught.value.key == "derive"
    with pytest.raises(ConfigError, match="too few") as caught:
        curate(run=Run(tmp_path / "out"), curation=Curation({"a": TextFiles(str(tmp_path / "a.txt"))}))
    assert caught.value.key == "curation.steps"


def test_ids_that_are_not_unique_get_a_number(tmp_path: Path):
    lines = [json.dumps({"text": f"text {n}", "k": n // 2}) for n in range(6)]
    (tmp_path / "b.jsonl").write_text("\n".join(lines))
    curation = Curation({"b": JsonLines(str(tmp_path / "b.jsonl"), id="k")}, split=HashSplit(0.3))
    curate(run=Run(tmp_path / "out"), curation=curation)
    written = [pl.read_parquet(tmp_path / "out" / f"{side}.parquet") for side in ("train", "validation")]
    assert sorted(pl.concat(written)["id"]) == ["0", "0#2", "1", "1#2", "2", "2#2"]
    ledger = pl.read_parquet(tmp_path / "out" / "ledger.parquet").filter(reason="duplicate_id")
    assert ledger.select("id", "match", "change").rows() == [(f"{n}#2", str(n), 0) for n in range(3)]


def test_sources_sharing_ids_are_told_apart(tmp_path: Path):
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.txt").write_text(f"first of {folder}\n\nsecond of {folder}")
    sources = {name: TextFiles(str(tmp_path / name / "a.txt"), per="paragraph") for name in ("x", "y")}
    curate(run=Run(tmp_path / "out"), curation=Curation(sources, split=HashSplit(0.3)))
    written = [pl.read_parquet(tmp_path / "out" / f"{side}.parquet") for side in ("train", "validation")]
    assert sorted(pl.concat(written)["id"]) == ["x/a.txt#0", "x/a.txt#1", "y/a.txt#0", "y/a.txt#1"]


def test_objects_that_leak_go_when_sources_share_ids(embedded: Path, tmp_path: Path):
    ledger = pl.read_parquet(embedded / "ledger.parquet").filter(step="leaked_objects")
    shared = ledger["id"][:3].to_list()
    assert all(one.startswith("docs:") for one in shared)
    curation = numpy_only()
    for name, ids in {"a": [*shared, "x"], "b": ["x"]}.items():
        rows = [json.dumps({"id": one, "text": f"{name} says of {one} what it likes"}) for one in ids]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(rows))
        curation.sources[name] = JsonLines(str(tmp_path / f"{name}.jsonl"), id="id")
    curate(run=Run(tmp_path / "out"), curation=curation)
    gone = pl.read_parquet(tmp_path / "out" / "ledger.parquet").filter(step="leaked_objects")["id"]
    assert {f"embedded/{one}" for one in shared} < set(gone)
    assert gone.str.starts_with("docs:").any(), "an id that no other source has stays as it is"


@pytest.mark.parametrize(
    "overrides",
    [
        ["task=curate"],
        ["task=curate", "curation=files", "curation.sources.files.path=PATH"],
        ["task=curate", "curation=files", "curation/source@curation.sources.files=jsonl",
         "curation.sources.files.path=PATH", "+curation/step@curation.steps.language=language"],
        ["task=curate", "curation=files", "curation.sources.files.path=PATH",
         "+curation/mixture@curation.mixture=domains", "curation.mixture.weights={text: 1}"],
    ],
)  # fmt: skip
def test_configs_build(overrides: list[str], tmp_path: Path):
    (tmp_path / "a.txt").write_text("text")
    config = compose([one.replace("PATH", str(tmp_path / "a.txt")) for one in overrides])
    built = build(config.curation)
    assert isinstance(built, Curation)
    assert built.fingerprint() == build(config.curation).fingerprint()


def test_findings_are_laid_out_for_review(tmp_path: Path):
    question = "How many bolts of blue and white fibre does a robe take in all, if it takes two of blue?"
    (tmp_path / "quiz.jsonl").write_text(json.dumps({"q": question}) + "\n" + json.dumps({"q": "Why not?"}))
    texts = [
        f"The people of number {n} have told the story of the village to all who would listen."
        for n in range(30)
    ]
    texts[7] += f" And then they asked: {question.lower()}"
    write_jsonl(tmp_path / "a.jsonl", texts, "a")
    step = Decontamination({"quiz": {"path": str(tmp_path / "quiz.jsonl"), "text": "q"}})
    source = {"a": JsonLines(str(tmp_path / "a.jsonl"))}
    curate(run=Run(tmp_path / "out"), curation=Curation(source, {"clean": step}, split=HashSplit(0.3)))
    review = pl.read_parquet(tmp_path / "out" / "review" / "clean.parquet")
    assert review.select("document", "item", "detector").rows() == [
        ("a.jsonl:8", "quiz:0", "ngram"),
        (None, "quiz:1", "not_checkable"),
    ]
    removed = pl.read_parquet(tmp_path / "out" / "ledger.parquet").filter(step="clean")
    assert removed.select("id", "reason", "match").rows() == [("a.jsonl:8", "contaminated_quiz", "quiz:0")]


def test_what_is_redacted_is_not_in_the_ledger_either(tmp_path: Path):
    secret = "ann.example@mail.example.org"
    texts = [f"Write to {secret} or call, the people of number {n} have told the story." for n in range(20)]
    write_jsonl(tmp_path / "a.jsonl", [*texts, texts[0]], "a")
    curation = Curation(
        {"a": JsonLines(str(tmp_path / "a.jsonl"))},
        {"exact_dedup": ExactDedup(), "pii": Pii(["email"])},
        split=HashSplit(0.3),
    )
    curate(run=Run(tmp_path / "out"), curation=curation)
    ledger = pl.read_parquet(tmp_path / "out" / "ledger.parquet")
    assert ledger.filter(step="pii").height == 20
    assert ledger.filter(step="exact_dedup")["excerpt"][0].startswith("Write to <EMAIL> or call")
    for path in (tmp_path / "out").iterdir():
        if path.suffix in (".parquet", ".json", ".md", ".log"):
            found = str(pl.read_parquet(path).to_dicts()) if path.suffix == ".parquet" else path.read_text()
            assert secret not in found, path.name


def test_a_finished_curation_is_not_done_again(tmp_path: Path):
    write_jsonl(tmp_path / "a.jsonl", [f"text of number {n}" for n in range(20)], "a")

    def run() -> Run:
        source = {"a": JsonLines(str(tmp_path / "a.jsonl"))}
        made = Run(tmp_path / "out")
        curate(run=made, curation=Curation(source, split=HashSplit(0.3)))
        return made

    first = run()
    before = (tmp_path / "out" / "train.parquet").stat().st_mtime_ns
    second = run()
    assert (tmp_path / "out" / "train.parquet").stat().st_mtime_ns == before
    assert second.summary == first.summary
    (tmp_path / "out" / "train.parquet").write_bytes(b"torn")
    run()
    assert pl.read_parquet(tmp_path / "out" / "train.parquet").height == first.summary["train_documents"]


def test_a_mistake_of_a_step_names_its_place(tmp_path: Path):
    write_jsonl(tmp_path / "a.jsonl", [f"text of number {n}" for n in range(20)], "a")
    source = {"a": JsonLines(str(tmp_path / "a.jsonl"))}
    words = Curation(source, {"rude": WordList(str(tmp_path / "nowhere.txt"))})
    with pytest.raises(ConfigError) as caught:
        curate(run=Run(tmp_path / "one"), curation=words)
    assert caught.value.key == "curation.steps.rude.path"
    mixture = Curation(source, split=HashSplit(0.3), mixture=DomainMixture({"text": 1, "books": 1}))
    with pytest.raises(ConfigError) as caught:
        curate(run=Run(tmp_path / "two"), curation=mixture)
    assert caught.value.key == "curation.mixture.weights.books"
    strict = Curation(source, {"quality": GopherQuality()})
    with pytest.raises(ConfigError, match="quality removed 20 of 20") as caught:
        curate(run=Run(tmp_path / "three"), curation=strict)
    assert caught.value.key == "curation.steps"

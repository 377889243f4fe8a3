from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import pytest

from llm.reports import page
from llm.reports.facts import Facts
from llm.runs.session import session
from llm.types import ConfigError

VOID = {"meta", "br", "img", "link", "hr", "input"}
EVIL = '<script>alert("x")</script> & \'"$\\frac$ <b>'


class Structure(HTMLParser):
    """Tags must nest; remembers text, tags and what would be fetched."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.fetched: list[str] = []
        self.ids: list[str] = []
        self.text = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes) -> None:
        self.tags.add(tag)
        given = dict(attributes)
        self.fetched += [str(given[k]) for k in ("src", "href", "xlink:href") if k in given]
        assert not [name for name in given if name.startswith("on")]
        if "id" in given:
            self.ids.append(given["id"])
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes) -> None:
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data) -> None:
        if not self.open or self.open[-1] != "style":
            self.text += data


def check(path) -> Structure:
    text = path.read_text(encoding="utf-8")
    found = Structure(text)
    assert "script" not in found.tags
    assert [url for url in found.fetched if not url.startswith(("#", "data:"))] == []
    assert len(found.ids) == len(set(found.ids))
    assert not re.search(r"url\((?!#)", text)
    for stand_in in ("#010101", "#020202", "#030303", "#040404", "#050505", "#060606"):
        assert stand_in not in text
    return found


def a_run(folder, stages=("pretrain", "sft"), n: int = 30):
    with session({"name": "demo", "seed": 1, "prompt": EVIL, "run_dir": str(folder)}) as run:
        for stage in stages:
            child = run.at_stage(stage, folder / "stages" / stage) if stage else run
            for step in range(n):
                metrics = {"loss": 3 - step / n, "lr": 1e-3, "grad_norm": 1.0 + step}
                child.log(metrics | ({"val_loss": 3.1 - step / n} if step % 10 == 0 else {}), step=step)
        if not stages[0]:
            run.summary["val_loss"] = 1.8857
        run.summary.update(n_params=124_439_808, tokens=5_000_000)
    return folder


FACTS: Facts = {
    "title": "Title " + EVIL,
    "stages": [
        {"name": "curate", "seconds": 3.0, "reused": True, "note": EVIL},
        {"name": "pretrain", "before": 8.0, "after": 3.5, "seconds": 200.0},
        {"name": "sft", "before": 4.0, "after": 3.0, "seconds": 60.0},
    ],
    "exam": {
        "name": EVIL,
        "n_questions": 400,
        "models": [{"name": "SFT " + EVIL, "value": 0.4, "low": 0.35, "high": 0.45}],
        "chance": 0.25,
        "baseline": 0.38,
        "baseline_name": "bag of words",
    },
    "preferences": {
        "n_pairs": 512,
        "models": [
            {"name": "SFT", "value": 0.04, "low": 0.02, "high": 0.06},
            {"name": "DPO", "value": 0.16, "low": 0.13, "high": 0.19},
        ],
        "difference": {"value": 0.12, "low": 0.1, "high": 0.14},
        "baseline": 0.56,
    },
    "samples": [{"prompt": EVIL, "completion": EVIL + "\n  indented", "model": EVIL}],
    "funnel": [{"step": EVIL, "documents": 100}, {"step": "dedup", "documents": 90}],
    "data": {"documents": 90, EVIL: EVIL},
    "commands": {"Chat": "python main.py task=serve " + EVIL},
}


def test_a_lifecycle_page_has_every_part_and_runs_nothing(tmp_path) -> None:
    path = page.write(a_run(tmp_path / "r"), FACTS)
    assert path == tmp_path / "r" / "report.html"
    found = check(path)
    for text in (
        "Held-out loss fell in every training stage (pretrain and sft).",
        "DPO prefers the chosen answers more than SFT does on 512 held-out pairs: +0.120 [+0.100, +0.140]",
        "answers 40.0 % of the exam [35.0 %, 45.0 %], above chance (25.0 %)",
        " and not to be told from the bag of words (38.0 %)",
        "124 M",
        "−4.5000",
        "Reused from an earlier run: curate",
        "90",
        EVIL,
        EVIL + "\n  indented",
        "python main.py task=serve",
        "torch",
    ):
        assert text in found.text.replace("\N{NO-BREAK SPACE}", " "), text
    assert len([i for i in found.ids if i.endswith("figure_1")]) == 6
    assert "b" not in {tag for tag in found.tags if tag == "script"}
    assert path.read_text().count("<svg") == 6


def test_a_single_task_page_shows_the_published_value(tmp_path) -> None:
    facts: Facts = {"published": {"val_loss": 1.88, "tolerance": 0.03, "source": "nanoGPT's README"}}
    found = check(page.write(a_run(tmp_path / "r", stages=("",)), facts))
    assert "val_loss is 1.8857; published: 1.88 (nanoGPT's README); difference +0.0057, within" in found.text
    assert "1.8857" in found.text
    assert "1.88 ± 0.03" in found.text
    assert "grad_norm" in found.text


def test_the_published_value_may_stand_in_the_config(tmp_path) -> None:
    (tmp_path / "config.yaml").write_text(
        "name: x\npublished: {val_loss: 1.88, tolerance: 0.03, source: s}\n"
    )
    (tmp_path / "result.json").write_text(
        '{"status": "done", "metrics": {"val_loss": 1.95, "published": {"val_loss": 1}}}'
    )
    found = check(page.write(tmp_path))
    assert (
        "val_loss is 1.9500; published: 1.88 (s); difference +0.0700, outside the tolerance of 0.03."
        in found.text
    )


def test_written_again_from_the_kept_facts(tmp_path) -> None:
    first = page.write(a_run(tmp_path / "r"), FACTS).read_text()
    (tmp_path / "r" / "report.html").unlink()
    assert page.write(tmp_path / "r").read_text() == first
    (tmp_path / "r" / "report.json").write_text("{torn")
    assert "demo" in check(page.write(tmp_path / "r")).text


@pytest.mark.parametrize("part", sorted(FACTS))
def test_any_part_may_be_missing(tmp_path, part: str, monkeypatch) -> None:
    monkeypatch.setattr(
        "llm.reports.plots.svg", lambda *_: "<svg></svg>"
    )  # drawing is slow, and tested above
    a_run(tmp_path / "r", n=3)
    check(page.write(tmp_path / "r", {k: v for k, v in FACTS.items() if k != part}))
    check(page.write(tmp_path / "r", {part: FACTS[part]}))


def test_empty_parts_and_a_bare_directory(tmp_path) -> None:
    (tmp_path / "config.yaml").write_text("name: bare\n")
    found = check(
        page.write(tmp_path, {"stages": [], "exam": {}, "preferences": {}, "samples": [], "funnel": []})
    )
    assert "bare" in found.text
    assert "running" in found.text
    empty: Facts = {
        "stages": [{}],
        "exam": {"models": [{}]},
        "samples": [{}],
        "funnel": [{}],
        "preferences": {"models": []},
    }
    check(page.write(tmp_path, empty))
    with pytest.raises(ConfigError) as caught:
        page.write(tmp_path / "absent", {})
    assert caught.value.key == "source"


def test_a_run_that_diverged_or_failed(tmp_path) -> None:
    def task() -> None:
        with session({"name": "demo", "run_dir": str(tmp_path)}) as run:
            for step, loss in enumerate([3.0, float("inf"), float("nan")]):
                run.log({"loss": loss, "val_loss": float("nan")}, step=step)
            run.summary["val_loss"] = float("nan")
            raise RuntimeError("loss is NaN " + EVIL)

    with pytest.raises(RuntimeError):
        task()
    found = check(page.write(tmp_path, {"published": {"val_loss": 1.88}}))
    assert "This run failed" in found.text
    assert "loss is NaN " + EVIL in found.text


def test_a_lifecycle_with_one_training_stage(tmp_path) -> None:
    a_run(tmp_path / "r", stages=("pretrain",))
    check(page.write(tmp_path / "r", {"stages": [{"name": "pretrain", "before": 3.0, "after": 2.0}]}))


def test_many_points_stay_small(tmp_path) -> None:
    folder = a_run(tmp_path / "r", stages=("",), n=20_000)
    assert page.write(folder, {}).stat().st_size < 300_000


def test_facts_are_plain_json(tmp_path) -> None:
    page.write(a_run(tmp_path / "r", n=2), FACTS)
    assert json.loads((tmp_path / "r" / "report.json").read_text())["exam"] == FACTS["exam"]

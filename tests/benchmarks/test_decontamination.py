from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from llm.benchmarks.decontamination import PlantedItems, edit, lay_out
from llm.runs.run import Run
from llm.types import ConfigError

ITEM = "The woman retired, therefore she received her pension and a watch."


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    rng = random.Random(0)
    lines = [" ".join("".join(rng.choices("abcdefgh", k=4)) for _ in range(40)) for _ in range(30)]
    (folder / "clean.jsonl").write_text("".join(json.dumps({"text": line}) + "\n" for line in lines))
    (folder / "quiz.jsonl").write_text(json.dumps({"q": ITEM}) + "\n")
    return folder


def planted(data: Path | None, **settings) -> PlantedItems:
    quiz = {"quiz": {"path": "quiz.jsonl", "text": ["q"]}}
    return PlantedItems(
        data and str(data), ["clean.jsonl"], quiz, **{"n_documents": 30, "n_plants": 10, **settings}
    )


def test_counts_what_is_found(data: Path, tmp_path: Path) -> None:
    metrics = planted(data).measure(Run(tmp_path / "run"))
    assert metrics["found_verbatim"] == metrics["found_edited"] == metrics["found_split"] == 1.0
    assert metrics["false_positive_rate"] == 0.0


def test_counts_what_is_missed_and_what_is_imagined(data: Path, tmp_path: Path) -> None:
    with (data / "clean.jsonl").open("a") as file:
        file.write(json.dumps({"text": f"It says: {ITEM}"}) + "\n")
    # every third word edited and nothing forgiven: only what is left alone is found
    metrics = planted(data, edited=0.34, threshold=1.0, n_documents=31).measure(Run(tmp_path / "run"))
    assert metrics["found_verbatim"] == metrics["found_split"] == 1.0
    assert metrics["found_edited"] < 1.0
    assert metrics["false_positive_rate"] == pytest.approx(1 / 31)


def test_edits_and_layout() -> None:
    rng = random.Random(1)
    text = " ".join(f"w{n}" for n in range(100))
    for _ in range(20):
        edited = edit(text, 0.05, rng).split()
        assert 1 <= len(set(text.split()) - set(edited)) + len(set(edited) - set(text.split())) <= 10
        laid_out = lay_out(text, rng)
        assert laid_out.lower().split() == text.split()
        assert "\n" in laid_out


def test_too_little_data(data: Path, tmp_path: Path) -> None:
    for settings, key in (({"n_documents": 31}, "n_documents"), ({"n_plants": 11}, "n_plants")):
        with pytest.raises(ConfigError) as caught:
            planted(data, **settings).measure(Run(tmp_path / key))
        assert caught.value.key == key
    with pytest.raises(ConfigError) as caught:
        planted(None).measure(Run(tmp_path / "none"))
    assert caught.value.key == "data"

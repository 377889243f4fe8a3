"""What every exam under conf/evaluation promises; a new file is found unaided."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from llm.checking import check
from llm.config import build
from llm.evaluation.base import DirectExam, Paired
from llm.evaluation.runner import difference, sit, size
from llm.evaluation.scorer import Scorer
from llm.types import Request, Response
from tests.evaluation.conftest import compose_decoder

TURN = {"role": "user", "content": "What does add do?"}
ROW: dict[str, Any] = {
    # one row with the keys of every kind of file, as the curation room writes them
    "id": "add",
    "question": "What does add do?",
    "choices": ["Adds.", "Subtracts.", "Sorts.", "Says hello."],
    "answer": 0,
    "prompt": [TURN],
    "chosen": "Adds two numbers.",
    "rejected": "Subtracts them.",
    "messages": [TURN, {"role": "assistant", "content": "Adds."}],
    "text": "def add(a, b): return a + b",
}


def rows_file(folder: Path, n: int = 5) -> Path:
    """A file any exam of this project can read."""
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps({**ROW, "id": f"r{i}"}) + "\n" for i in range(n)), encoding="utf-8")
    return path


def check_exam(path: Path, folder: Path, tokenizer: Any) -> None:
    """Raises when the exam that the YAML at `path` configures breaks its promises."""
    assert path.read_text(encoding="utf-8").startswith("# "), "the first line says what it is, for --help"
    config = OmegaConf.load(path)
    assert isinstance(config, DictConfig)
    assert list(config) == [path.stem], (
        "an exam's YAML has one key, its name, so that a list of exams composes"
    )
    (folder / "text.txt").write_text("All work and no play makes Jack a dull boy. " * 40, encoding="utf-8")
    data = {"_target_": "llm.data.text.TextData", "path": str(folder / "text.txt"), "seq_len": 32}
    root = OmegaConf.create({"data": data, "evaluation": config})
    node = root.evaluation[path.stem]
    for key in OmegaConf.missing_keys(node):
        assert key.rpartition(".")[2] == "path", f"{key}: an exam needs no more than a path to be run"
    if OmegaConf.is_missing(node, "path"):
        node.path = str(rows_file(folder))
    check(root)
    exam = build(node)
    assert exam.name == path.stem, f"calls itself {exam.name}"
    if not isinstance(exam, DirectExam):
        _check_requests(exam)
    _check_result(exam, Scorer(compose_decoder(tokenizer.vocab_size, 128), tokenizer))


def _check_requests(exam: Any) -> None:
    """An exam knows nothing of models: examples, requests and scores are plain values, the same each time."""
    examples = list(exam.examples())
    assert examples == list(exam.examples()), "examples() can be asked again"
    for example in examples:
        requests = exam.requests(example)
        assert requests, "requests() asks nothing"
        assert all(isinstance(request, Request) for request in requests)
        responses = [Response(-float(i + 1), 2, "Adds.") for i in range(len(requests))]
        scores = exam.score(example, responses)
        assert scores
        assert all(isinstance(value, float) and math.isfinite(value) for value in scores.values()), scores
        assert scores == exam.score(example, responses)


def _check_result(exam: Any, scorer: Scorer) -> None:
    done: list[int] = []
    result = sit(exam, scorer, done.append)
    assert sum(done) == size(exam, scorer) > 0
    assert result.main in result.metrics
    assert all(isinstance(value, float) and math.isfinite(value) for value in result.metrics.values()), result
    assert result.rows
    assert all(list(row) == list(result.rows[0]) for row in result.rows), "rows make a table"
    assert len({row["id"] for row in result.rows}) == len(result.rows), "an id names one example"
    json.dumps(result.rows)
    again = sit(exam, scorer)
    for name, value in again.metrics.items():
        assert math.isclose(value, result.metrics[name], abs_tol=1e-6), f"{name} differs from run to run"
    if isinstance(exam, Paired):
        assert abs(difference(exam, result, again).estimate) < 1e-6
    if callable(getattr(exam, "fingerprint", None)):
        assert exam.fingerprint() == exam.fingerprint() != ""
    assert list(itertools.islice(result.prompts, 1)), "something to show samples of"

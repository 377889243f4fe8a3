"""Weights from a file: shares of tokens turned into shares of bytes, and files that are none."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from llm.curation.base import judge
from llm.curation.learned_weights import LearnedMixture
from llm.types import ConfigError


def frame() -> pl.DataFrame:
    return pl.DataFrame(
        {
            "id": [str(i) for i in range(1000)],
            "text": ["12345678"] * 1000,
            "domain": ["docs", "code"] * 500,
        }
    )


@pytest.mark.parametrize(
    ("content", "docs"),
    [
        ({"weights": {"docs": 3, "code": 1}}, 0.75),
        # three quarters of the tokens, of 2 bytes each, beside a quarter of 6 bytes each: as many bytes
        ({"weights": {"docs": 3, "code": 1}, "bytes_per_token": {"docs": 2, "code": 6}}, 0.5),
    ],
)
def test_shares(tmp_path: Path, content: object, docs: float) -> None:
    path = tmp_path / "weights.json"
    path.write_text(json.dumps(content))
    step = LearnedMixture(str(path), max_repeats=1)
    said: list[str] = []
    step.prepare(said.append)
    assert said == ["weights: docs 75.0%, code 25.0%"]
    judged = judge(step, frame())
    assert judged.filter(domain="docs")["copies"].sum() / judged["copies"].sum() == pytest.approx(
        docs, abs=0.01
    )
    before = step.fingerprint()
    path.write_text('{"weights": {"docs": 1, "code": 1}}')
    assert step.fingerprint() != before


def test_a_scarce_domain_is_capped(tmp_path: Path) -> None:
    path = tmp_path / "weights.json"
    path.write_text('{"weights": {"code": 1, "docs": 1, "talk": 2}}')
    n_bytes = {("code",): 600, ("docs",): 390, ("talk",): 10}
    found = LearnedMixture(str(path), max_repeats=4).targets(n_bytes)
    assert found == pytest.approx({("code",): 480, ("docs",): 480, ("talk",): 40})


@pytest.mark.parametrize(
    "content",
    [
        "", "[]", "{}", '{"weights": [1]}', '{"weights": {}}', '{"weights": {"docs": "much"}}',
        '{"weights": {"docs": -1, "code": 2}}', '{"weights": {"docs": NaN, "code": 2}}',
        '{"weights": {"docs": 1, "code": 2}, "bytes_per_token": {"docs": 1}}', '{"weights": {"docs": 1}}',
        '{"weights": {"docs": 1, "code": 2, "other": 1}}',
    ],
)  # fmt: skip
def test_a_file_that_is_no_weights_file_or_of_other_domains(tmp_path: Path, content: str) -> None:
    path = tmp_path / "weights.json"
    path.write_text(content)
    with pytest.raises(ConfigError) as caught:
        judge(LearnedMixture(str(path)), frame())
    assert (caught.value.key, str(caught.value.value)) == ("path", str(path))

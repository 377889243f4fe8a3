"""The package's `evaluate` modules: right numbers, no network, any cache, several processes at once."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from llm.evaluation.aggregation import METRICS, compute
from llm.statistics import binomial_standard_error, bootstrap_interval, mean_standard_error, wilson_interval


def test_choice_accuracy() -> None:
    metrics = compute("choice_accuracy", [0, 1, 2, 3, 1], [0, 1, 2, 0, 0], n_choices=[4, 4, 4, 4, 2])
    interval = wilson_interval(3, 5)
    assert metrics == pytest.approx(
        {
            "accuracy": 0.6,
            "standard_error": binomial_standard_error(3, 5),
            "low": interval.low,
            "high": interval.high,
            "chance": (4 * 0.25 + 0.5) / 5,
        }
    )


def test_token_likelihood() -> None:
    metrics = compute("token_likelihood", [-3.0, -5.0], [2, 6], n_bytes=16.0)
    assert metrics == pytest.approx(
        {"loss": 1.0, "perplexity": math.e, "n_tokens": 8, "bits_per_byte": 8 / math.log(2) / 16}
    )
    assert "bits_per_byte" not in compute("token_likelihood", [-3.0], [2])
    assert compute("token_likelihood", [-1e6], [1])["perplexity"] == math.inf


def test_preference_margin() -> None:
    chosen, rejected = [-1.0, -2.0, -3.0, -1.5], [-2.0, -1.0, -3.0, -2.0]
    margins = np.subtract(chosen, rejected)
    interval = bootstrap_interval(margins)
    metrics = compute("preference_margin", chosen, rejected)
    assert metrics["margin"] == pytest.approx(0.125)
    assert metrics["accuracy"] == pytest.approx(2.5 / 4)
    assert metrics["margin_standard_error"] == pytest.approx(mean_standard_error(margins))
    assert (metrics["margin_low"], metrics["margin_high"]) == (interval.low, interval.high)
    assert (metrics["chosen"], metrics["rejected"]) == pytest.approx((-1.875, -2.0))


def test_every_folder_is_a_module_that_loads() -> None:
    from llm.evaluation.aggregation import _load

    folders = [folder.name for folder in METRICS.iterdir() if (folder / f"{folder.name}.py").exists()]
    assert len(folders) >= 3
    for name in folders:
        assert _load(name).inputs_description


SCRIPT = """
import socket, sys, json, os
def refuse(*a, **k):
    raise AssertionError(f"network: {a[1:]}")
socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = socket.create_connection = refuse
from llm.evaluation.aggregation import compute
assert "evaluate" not in sys.modules, "imported at the top: composing and help would wait for it"
environment = dict(os.environ)
values = [compute("choice_accuracy", [0, 1], [0, 0], n_choices=[4, 4])["accuracy"] for _ in range(3)]
values.append(compute("token_likelihood", [-2.0], [2])["loss"])
assert dict(os.environ) == environment
print(json.dumps(values))
"""


def test_offline_in_a_fresh_and_unwritable_home_in_several_processes(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    home.chmod(0o500)
    nowhere = home / "no" / "such" / "folder"
    (tmp_path / "blocked").write_text("a file where a folder would be")
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith("HF_")},
        "HOME": str(nowhere),
        "HF_HOME": str(tmp_path / "blocked" / "cache"),
        "TMPDIR": str(tmp_path),
        "PYTHONPATH": str(METRICS.parents[2]),
    }
    command = [sys.executable, "-c", SCRIPT]
    running = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for process in running:
        output, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
        assert json.loads(output.splitlines()[-1]) == [0.5, 0.5, 0.5, 1.0]
    assert not list(tmp_path.glob("llm-evaluate-*")), "left a folder behind"

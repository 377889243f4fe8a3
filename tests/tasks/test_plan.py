"""task=plan, as it is typed."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from llm.runs.directory import read
from tests.conftest import REPOSITORY, Main

PRESETS = sorted(path.stem for path in (REPOSITORY / "experiments").glob("*.yaml"))
DEVICES = sorted(path.stem for path in (REPOSITORY / "conf/device").glob("*.yaml"))
TINY = ("model.d_model=16", "model.n_layers=2", "model.n_heads=2", "data.seq_len=16", "device=h100")


def plan(main: Main, *arguments: str) -> dict[str, Any]:
    done = main("task=plan", "tracker=none", "run_dir=run", *arguments)
    assert done.code == 0, done.err
    found: dict[str, Any] = json.loads((main.home / "run" / "plan.json").read_text())
    metrics = read(main.home / "run").result["metrics"]
    assert metrics["memory_bytes"] == found["summary"]["memory_bytes"]
    assert metrics["objective"] == metrics["train_seconds"]
    assert (main.home / "run" / "memory.png").read_bytes().startswith(b"\x89PNG")
    assert f"{found['n_params']:,}" in done.out
    return found


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_can_be_planned(main: Main, preset: str) -> None:
    found = plan(main, f"experiments={preset}")
    assert found["summary"]["fits"]
    assert read(main.home / "run").config["device"]["_target_"] == "llm.planning.devices.ThisCPU"


def test_a_pretraining_command_line_becomes_a_plan_and_reads_no_data(main: Main) -> None:
    found = plan(
        main, "data=text", "data.path=nowhere.txt", "tokenizer.vocab_size=300", *TINY, "trainer.max_steps=7",
        "trainer.batch_size=6", "schedule=wsd", "optimizer.lr=1e-3", "checkpointing.keep=1", "resume=null",
    )  # fmt: skip
    assert found["vocab_size"] == 300
    assert found["summary"]["training_tokens"] == 7 * 6 * 16
    assert found["parameters"]["embedding"]["parameters"] == 300 * 16
    assert found["device"]["label"].startswith("NVIDIA H100")


@pytest.mark.parametrize(
    ("arguments", "size"),
    [
        (["tokenizer=byte"], 259),
        (["tokenizer=byte", "vocab_size=77"], 77),
        (["tokenizer=character"], 128),
        (["model=llama3_8b", "model.n_layers=1", "model.d_ff=8"], 128_256),
    ],
)
def test_the_vocabulary_is_found(main: Main, arguments: list[str], size: int) -> None:
    sizes = (
        [t for t in TINY if not t.startswith("model.n_layers")] if "model=llama3_8b" in arguments else TINY
    )
    kv = ["model.n_kv_heads=1"] if "model=llama3_8b" in arguments else []
    assert plan(main, *arguments, *sizes, *kv)["vocab_size"] == size


def test_what_does_not_fit_is_said_with_what_would(main: Main) -> None:
    done = main(
        "task=plan", "tracker=none", "model=llama3_8b", "device=h100", "n_devices=8", "parallelism=fsdp2",
        "precision=bf16", "seq_len=8192", "trainer.batch_size=16",
    )  # fmt: skip
    assert done.code == 0, done.err
    words = " ".join(done.out.split())
    assert "DOES NOT FIT" in words
    assert re.search(r"It does not fit: [\d.]+ GiB too much .* n_devices=16", words)
    assert "8,030,261,248" in words


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["n_devices=2"], "error: n_devices=2: parallelism=single uses one"),
        (["parallelism=ddp"], "error: n_devices=1: parallelism=ddp needs more than one"),
        (
            ["parallelism=fsdp2", "n_devices=5"],
            "error: trainer.batch_size=12: is not divisible by n_devices=5 x",
        ),
        (
            ["parallelism=ddp", "parallelism.replicas=4", "n_devices=2"],
            "error: parallelism.replicas=4: the plan",
        ),
        (["~tokenizer"], "error: vocab_size=None: nothing says how many tokens"),
        (["device=abacus"], "error: device=abacus: no such option"),
        (["utilisation=1.5"], "error: utilisation=1.5: should be less than or equal to 1"),
        (["model.n_heads=5"], "error: model.n_heads=5: d_model=16 is not divisible"),
        (["device.watts=-3"], "error: device.watts=-3: should be greater than 0"),
    ],
)
def test_mistakes(main: Main, arguments: list[str], error: str) -> None:
    done = main("task=plan", "tracker=none", *TINY, *arguments)
    assert done.code == 2
    assert done.err.splitlines()[-1].startswith(error), done.err
    assert not list(main.home.glob("runs/*/*/done.json"))

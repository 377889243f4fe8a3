"""task=align: a trained model learns to answer, then to prefer, and can be stopped in between."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import cast

import pytest
import torch
from torch import nn

from llm.checkpoints.local import load, load_model
from llm.models.adapters.merge import merged
from llm.models.weights import persistent
from llm.runs.directory import read
from tests.conftest import Main

COMMON = (
    "tracker=none",
    "data.seq_len=64",
    "schedule=constant",
    "trainer.batch_size=4",
    "trainer.eval_every_steps=10",
)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pretrained model, conversations and preferences."""
    home = tmp_path_factory.mktemp("align")
    (home / "text.txt").write_text("To be, or not to be, that is the question.\n" * 40)
    for side, numbers in (("train", range(40)), ("validation", range(40, 50))):
        asked = [
            (str(n), [{"role": "user", "content": f"What is {n} + 1?"}], str(n + 1), str(n)) for n in numbers
        ]
        (home / f"talk_{side}.jsonl").write_text(
            "".join(
                json.dumps({"id": i, "messages": [*prompt, {"role": "assistant", "content": right}]}) + "\n"
                for i, prompt, right, _ in asked
            )
        )
        (home / f"pairs_{side}.jsonl").write_text(
            "".join(
                json.dumps({"id": i, "prompt": prompt, "chosen": right, "rejected": wrong}) + "\n"
                for i, prompt, right, wrong in asked
            )
        )
    done = Main(home)(
        "task=pretrain", "data=text", "data.path=text.txt", "tokenizer=byte", *COMMON, "model.d_model=16",
        "model.n_layers=1", "model.n_heads=2", "model.dropout=0.1", "trainer.max_steps=5", "run_dir=base",
    )  # fmt: skip
    assert done.code == 0, done.err
    return home


def sft(home: Path, *more: str) -> Main.Done:
    return Main(home)("task=align", "model.path=base", "data.train=talk_train.jsonl", "optimizer.lr=1e-2",
                      "data.validation=talk_validation.jsonl", *COMMON, *more)  # fmt: skip


def dpo(home: Path, *more: str) -> Main.Done:
    return Main(home)("task=align", "alignment=dpo", "data=preferences", "model.path=sft", *COMMON,
                      "data.train=pairs_train.jsonl", "data.validation=pairs_validation.jsonl",
                      "optimizer.lr=1e-3", *more)  # fmt: skip


@pytest.fixture(scope="module")
def tuned(home: Path) -> Path:
    done = sft(home, "trainer.max_steps=20", "run_dir=sft")
    assert done.code == 0, done.err
    return home / "sft"


def test_supervised_fine_tuning_lowers_the_loss_on_answers(home: Path, tuned: Path) -> None:
    metrics = read(tuned).result["metrics"]
    assert metrics["val_loss"] < metrics["val_loss_before"] - 0.5
    _, tokenizer, info = load_model(tuned)
    assert info["chat"] is True
    assert info["config"]["d_model"] == 16
    assert tokenizer.vocab_size == load_model(home / "base")[1].vocab_size
    done = Main(home)("task=generate", "tracker=none", "checkpoint=sft", "prompt=What is 3 + 1?",
                      "generation.max_new_tokens=4")  # fmt: skip
    assert done.code == 0, done.err


def test_preference_optimisation_starts_at_its_reference(home: Path, tuned: Path) -> None:
    done = dpo(home, "trainer.max_steps=20", "run_dir=dpo")
    assert done.code == 0, done.err
    metrics = read(home / "dpo").result["metrics"]
    assert metrics["val_loss_before"] == pytest.approx(0.693147, abs=1e-5)  # log 2: no margin yet
    assert metrics["val_loss"] < metrics["val_loss_before"]
    assert metrics["val_reward_margin"] > 0


def test_a_resumed_preference_run_keeps_the_first_reference(home: Path, tuned: Path) -> None:
    assert dpo(home, "trainer.max_steps=8", "run_dir=whole").code == 0
    assert dpo(home, "trainer.max_steps=4", "run_dir=parts").code == 0
    done = Main(home)("resume=parts", "trainer.max_steps=8")
    assert done.code == 0, done.err
    assert "going on from step 4 of 8" in done.err
    whole, parts = read(home / "whole"), read(home / "parts")
    assert parts.result["weights_sha256"] == whole.result["weights_sha256"]
    clock = {"seconds", "tokens_per_second", "memory_bytes"}
    curves = [
        [{k: v for k, v in line.items() if k not in clock} for line in record.metrics if line["step"] != 4]
        for record in (parts, whole)
    ]
    assert curves[0] == curves[1]


def test_a_model_that_is_none_is_a_mistake(home: Path, tmp_path: Path) -> None:
    done = sft(home, f"model.path={tmp_path}", "trainer.max_steps=2")
    assert done.code == 2
    assert f"error: model.path={tmp_path}: " in done.err


def test_a_torn_model_is_a_mistake(home: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(home / "base", tmp_path / "copy", symlinks=True))
    for weights in copy.glob("checkpoints/step_*/model.safetensors"):
        weights.write_bytes(weights.read_bytes()[:-7])
    done = sft(home, f"model.path={copy}", "trainer.max_steps=2")
    assert done.code == 2
    assert f"error: model.path={copy}: every checkpoint in it is torn" in done.err


# ----------------------------------------------------------------------------- adapters


def test_an_adapter_learns_and_its_checkpoint_is_whole(home: Path) -> None:
    adapter = ("model/adapter=lora", "model.adapter.rank=4", "model.adapter.dropout=0.1")
    done = sft(home, *adapter, "trainer.max_steps=20", "run_dir=lora")
    assert done.code == 0, done.err
    assert " parameters are trained (" in done.err
    metrics = read(home / "lora").result["metrics"]
    assert metrics["val_loss"] < metrics["val_loss_before"] - 0.05
    base, (adapted, _, info) = load(home / "base").model, load_model(home / "lora")
    assert info["config"]["adapter"]["rank"] == 4
    tensors = load(home / "lora").model
    moved = {name.rpartition(":")[0] for name in load(home / "lora").optimizer}
    assert moved == {name for name in tensors if name.endswith((".a", ".b"))}
    for name, tensor in base.items():
        kept = tensors.get(name, tensors.get(name.replace(".weight", ".base.weight")))
        assert kept is not None
        assert torch.equal(kept, tensor), f"{name} is frozen"
    plain = merged(cast(nn.Module, adapted))
    assert persistent(plain).keys() == base.keys()

    assert sft(home, *adapter, "trainer.max_steps=10", "run_dir=cut").code == 0
    done = Main(home)("resume=cut", "trainer.max_steps=20")
    assert done.code == 0, done.err
    assert read(home / "cut").result["weights_sha256"] == read(home / "lora").result["weights_sha256"]
    assert sft(home, *adapter, "trainer.max_steps=1", "seed=7", "run_dir=other").code == 0
    first = [load(home / name).model["blocks.0.attention.qkv.a"] for name in ("cut", "other")]
    assert not torch.allclose(first[0], first[1], atol=0.1), "the run's seed draws the adapter"

    done = Main(home)("task=generate", "tracker=none", "checkpoint=lora", "prompt=What is 3 + 1?",
                      "generation.max_new_tokens=4")  # fmt: skip
    assert done.code == 0, done.err


def test_a_second_adapter_starts_from_the_first_ones_model(home: Path, tuned: Path) -> None:
    adapter = ("model/adapter=qlora", "model.adapter.rank=2", "model.adapter.targets=[attention.*]")
    assert sft(home, "model/adapter=dora", "trainer.max_steps=4", "run_dir=dora").code == 0
    done = dpo(home, "model.path=dora", *adapter, "trainer.max_steps=10", "run_dir=qlora")
    assert done.code == 0, done.err
    metrics = read(home / "qlora").result["metrics"]
    assert metrics["val_loss_before"] == pytest.approx(0.693147, abs=1e-5)
    assert metrics["val_loss"] < metrics["val_loss_before"]
    config = load_model(home / "qlora")[2]["config"]
    assert config["adapter"]["_target_"].endswith(".qlora")
    assert config["base"]["_target_"].endswith(".Decoder")


def test_a_target_that_is_not_there_is_named_by_its_full_path(home: Path) -> None:
    done = sft(home, "model/adapter=lora", "model.adapter.targets=[q_proj]", "trainer.max_steps=1")
    assert done.code == 2
    assert "error: model.adapter.targets=['q_proj']: q_proj names no linear layer; there are" in done.err
    assert "blocks.*.attention.qkv" in done.err

"""Checkpoints are whole or not there, and every altered byte is noticed."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from llm.checkpoints import local, manifest
from llm.checkpoints.local import LocalCheckpoints, load, load_model, newest_whole, resolve
from llm.checkpoints.recipe import recipe_of
from llm.config import build
from llm.tokenizers import byte
from llm.types import ConfigError
from tests.training import tiny

REPOSITORY = Path(__file__).resolve().parents[2]


def save(
    directory: Path, step: int, *, keep: int = 2, best: bool = False, size: int = 8, **more: Any
) -> Path:
    model = {"w": torch.full((size, 3), float(step)), "b": torch.arange(size, dtype=torch.float64)}
    rest: dict[str, Any] = {
        "optimizer": {"w:exp_avg": torch.full((size, 3), -float(step))},
        "state": {"seed": 1, "text": "ä"},
        "description": {"config": {"_target_": "llm.nothing"}, "vocab_size": 5, "max_seq_len": 7, "info": {}},
        "tokenizer": tiny.Letters(),
    }
    kept = LocalCheckpoints(keep=keep)
    return kept.save(directory, step=step, best=best, **({"model": model} | rest | more))


def files(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*") if path.is_file())


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    path = save(tmp_path, 100)
    names = ["manifest.json", "model.json", "model.safetensors", "optimizer.safetensors", "state.json"]
    assert sorted(p.name for p in path.iterdir()) == [*names, "tokenizer"]
    assert path.name == "step_000100"
    found = load(path)
    assert found.step == 100
    assert torch.equal(found.model["w"], torch.full((8, 3), 100.0))
    assert found.model["b"].dtype == torch.float64
    assert torch.equal(found.optimizer["w:exp_avg"], torch.full((8, 3), -100.0))
    assert found.state == {"seed": 1, "text": "ä", "step": 100}
    assert found.description["max_seq_len"] == 7


def test_the_newest_and_the_best_stay(tmp_path: Path) -> None:
    for step in (5, 10, 15, 20, 25):
        save(tmp_path, step, keep=2, best=step == 10)
    left = sorted(p.name for p in tmp_path.iterdir())
    assert left == ["best", "last", "step_000010", "step_000020", "step_000025"]
    assert (tmp_path / "last").readlink() == Path("step_000025")
    assert (tmp_path / "best").readlink() == Path("step_000010")
    save(tmp_path, 30, keep=1, best=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["best", "last", "step_000030"]


def test_a_run_its_checkpoints_a_step_and_a_link_all_resolve(tmp_path: Path) -> None:
    directory = tmp_path / "checkpoints"
    first, second = save(directory, 1, best=True), save(directory, 2)
    for path, expected in (
        (tmp_path, second),
        (directory, second),
        (directory / "last", second),
        (directory / "best", first),
        (first, first),
        (str(second), second),
    ):
        assert resolve(path) == expected


def test_a_torn_one_is_passed_over_with_a_warning(tmp_path: Path) -> None:
    directory = tmp_path / "checkpoints"
    first, second = save(directory, 1), save(directory, 2)
    weights = second / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    for path in (tmp_path, directory, directory / "last"):
        with pytest.warns(RuntimeWarning, match=r"step_000002: model.safetensors has .* bytes"):
            assert resolve(path) == first
    with pytest.raises(ConfigError, match=r"torn.*use .*step_000001") as mistake:
        resolve(second)
    assert mistake.value.key == "checkpoint"
    (first / "manifest.json").unlink()
    with pytest.warns(RuntimeWarning), pytest.raises(ConfigError, match="every checkpoint in it is torn"):
        resolve(tmp_path, key="resume")
    with pytest.warns(RuntimeWarning):
        assert newest_whole(directory) is None


def test_a_torn_one_is_replaced_when_training_is_there_again(tmp_path: Path) -> None:
    second = save(tmp_path, 2)
    (second / "state.json").write_text("{")
    save(tmp_path, 2)
    assert load(tmp_path).step == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last", "step_000002"]


def test_every_truncated_file_and_every_flipped_bit_is_noticed(tmp_path: Path) -> None:
    whole = save(tmp_path / "whole", 3)
    assert manifest.fault(whole) is None
    for file in files(whole):
        name, content = file.relative_to(whole), file.read_bytes()
        damaged = [content[:-1], content[: len(content) // 2], b"", content + b"\n"]
        generator = random.Random(str(name))
        places = (
            range(len(content))
            if file.name == "manifest.json"
            else generator.choices(range(len(content)), k=20)
        )
        for place in places:
            flipped = bytearray(content)
            flipped[place] ^= 1 << generator.randrange(8)
            damaged.append(bytes(flipped))
        for bad in damaged:
            file.write_bytes(bad)
            assert manifest.fault(whole) is not None, (name, bad[:80])
        file.unlink()
        assert manifest.fault(whole) is not None
        file.write_bytes(content)
    assert manifest.fault(whole) is None


@pytest.mark.parametrize("name", ["nowhere", "empty", "file.txt"])
def test_what_is_no_checkpoint_is_the_users_mistake(name: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.txt").write_text("hello")
    with pytest.raises(ConfigError, match="give") as mistake:
        resolve(tmp_path / name)
    assert (mistake.value.key, mistake.value.value) == ("checkpoint", tmp_path / name)


def test_a_kill_at_any_moment_leaves_a_whole_last(tmp_path: Path) -> None:
    """The writer does nothing but save, so every kill is inside one; each writer starts on the ruins."""
    directory, generator, newest = tmp_path / "checkpoints", random.Random(0), []
    fork = subprocess.Popen(
        [sys.executable, "-c", FORKING, str(directory)],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert fork.stdin is not None
    assert fork.stdout is not None
    try:
        ruins = 0
        for _ in range(25):
            fork.stdin.write("go\n")
            fork.stdin.flush()
            writer = int(fork.stdout.readline())
            assert fork.stdout.readline() == "ready\n"
            time.sleep(generator.uniform(0, 0.06))
            os.kill(writer, signal.SIGKILL)
            assert fork.stdout.readline() == "gone\n"
            ruins += any(directory.glob(".tmp-*"))
            for visible in directory.glob("step_*"):
                assert manifest.fault(visible) is None
            found = load((directory / "last").resolve())  # the link itself, no search for another
            assert torch.equal(found.model["w"], torch.full((200_000, 3), float(found.step)))
            if (directory / "best").exists():
                assert manifest.fault((directory / "best").resolve()) is None
            newest.append(found.step)
    finally:
        fork.stdin.close()
        fork.wait(timeout=20)
    assert ruins >= 6, "the kills must fall into saves"


# Starts writers that have torch imported already, one for each line it reads.
FORKING = """
import os, signal, sys, torch
from pathlib import Path
from tests.checkpoints.test_local import save
torch.set_num_threads(1)
directory, step = Path(sys.argv[1]), 0
save(directory, 1, size=200_000)
for line in sys.stdin:
    writer = os.fork()
    if writer == 0:
        print(os.getpid(), flush=True)
        newest = max(int(p.name[5:]) for p in directory.glob("step_*"))
        print("ready", flush=True)
        for step in range(newest + 1, newest + 10_000):
            save(directory, step, size=200_000, best=step % 3 == 0)
    os.waitpid(writer, 0)
    print("gone", flush=True)
"""


# ----------------------------------------------------------------------------- models


def save_model(directory: Path, config: Any = None, weights: dict[str, torch.Tensor] | None = None) -> Path:
    model = tiny.model(seed=4)
    description = {
        "config": recipe_of(build(tiny.MODEL)) if config is None else config,
        "vocab_size": tiny.VOCAB,
        "max_seq_len": tiny.SEQ_LEN,
        "info": {"chat": True},
    }
    tensors = dict(model.named_parameters()) if weights is None else weights
    tensors = {name: tensor.detach() for name, tensor in tensors.items()}
    return save(directory, 9, model=tensors, description=description, tokenizer=byte.train([]))


def test_a_model_is_rebuilt_from_its_checkpoint_alone(tmp_path: Path) -> None:
    model, tokenizer, info = load_model(save_model(tmp_path))
    batch = tiny.Counting(3).batch(range(3))
    with torch.no_grad():
        assert torch.equal(model(batch), tiny.model(seed=4).eval()(batch))
    assert not model.training
    assert tokenizer.decode(tokenizer.encode("whole")) == "whole"
    assert (info["step"], info["chat"]) == (9, True)
    assert info["config"] == tiny.MODEL


def test_weights_of_another_architecture_are_refused(tmp_path: Path) -> None:
    wide = dict(tiny.model(d_model=48).named_parameters())
    deep = dict(tiny.model(n_layers=3).named_parameters())
    shallow = dict(tiny.model(n_layers=1).named_parameters())
    for number, (weights, words) in enumerate(
        (
            (wide, r"embedding.weight has shape \[37, 48\], the model's \[37, 32\]"),
            (deep, "the model does not"),
            (shallow, "the model does"),
        )
    ):
        path = save_model(tmp_path / str(number), weights=weights)
        with pytest.raises(ConfigError, match=words) as mistake:
            load_model(path)
        assert mistake.value.key == "checkpoint"


def test_a_checkpoint_cannot_call_what_a_config_cannot(tmp_path: Path) -> None:
    path = save_model(tmp_path, config={"_target_": "os.system", "command": "true"})
    with pytest.raises(ConfigError, match="may not be called"):
        load_model(path)


def test_recipe_of_refuses_what_cannot_be_written_down() -> None:
    with pytest.raises(TypeError, match="written down"):
        recipe_of({"norm": [object()]})


# ----------------------------------------------------------------------------- digests


def test_weights_sha256_knows_names_types_shapes_and_values() -> None:
    base = {"a": torch.arange(6.0), "b": torch.ones(2, 2)}
    digest = manifest.weights_sha256(base)
    assert digest == manifest.weights_sha256(dict(reversed(base.items())))
    assert digest == manifest.weights_sha256({**base, "b": torch.ones(2, 4)[:, ::2]})
    others = [
        {"a": base["a"], "c": base["b"]},
        {**base, "a": base["a"].view(2, 3)},
        {**base, "a": base["a"].double()},
        {**base, "a": base["a"].nextafter(torch.tensor(9.0))},
        {**base, "a": -base["a"]},
    ]
    assert len({digest, *(manifest.weights_sha256(other) for other in others)}) == 6


def test_bfloat16_weights_have_a_digest() -> None:
    assert (
        len(manifest.weights_sha256({"a": torch.ones(3, dtype=torch.bfloat16), "b": torch.tensor(1)})) == 64
    )


def test_leftovers_of_killed_saves_are_removed(tmp_path: Path) -> None:
    (tmp_path / ".tmp-step_000001").mkdir()
    save(tmp_path, 2)
    assert not list(tmp_path.glob(".tmp-*"))
    shutil.rmtree(tmp_path / "step_000002")
    assert local.newest_whole(tmp_path) is None

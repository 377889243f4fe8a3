from __future__ import annotations

import multiprocessing
import time
from pathlib import Path

import pytest

from llm import files
from llm.runs import artifacts
from llm.runs.artifacts import ArtifactStore

KEY = "0123456789abcdef0123"


def build(store: ArtifactStore, key: str = KEY, text: str = "weights") -> Path:
    folder = store.open("pretrain", key)
    (folder / "checkpoints" / "step_1").mkdir(parents=True, exist_ok=True)
    (folder / "checkpoints" / "step_1" / "model").write_text(text)
    (folder / "checkpoints" / "last").symlink_to("step_1")
    return store.publish("pretrain", key, {"config": {"lr": 0.1}, "upstream": ["k1"]})


def test_key_depends_on_all_that_matters_and_nothing_else() -> None:
    arguments = {
        "stage": "sft",
        "version": 1,
        "config": {"lr": 0.1, "data": {"path": "x"}},
        "upstream": ["a", "b"],
        "fingerprints": {"data": "f"},
    }
    base = artifacts.key(**arguments)
    assert len(base) == 20
    others = [
        {"stage": "dpo"},
        {"version": 2},
        {"config": {"lr": 0.2, "data": {"path": "x"}}},
        {"config": {"lr": 0.1, "data": {"path": "y"}}},
        {"upstream": ["a", "c"]},
        {"upstream": ["b", "a"]},
        {"fingerprints": {"data": "g"}},
        {"fingerprints": {}},
    ]
    assert len({base, *(artifacts.key(**{**arguments, **other}) for other in others)}) == 1 + len(others)
    same = {"config": {"data": {"path": "x"}, "lr": 0.1, "name": "n", "tracker": None, "run_dir": "r"}}
    assert artifacts.key(**{**arguments, **same}) == base
    assert artifacts.key(**{**arguments, "config": {**arguments["config"], "n": 1}}, ignore={"n"}) == base


def test_publish_and_find(tmp_path) -> None:
    store = ArtifactStore(tmp_path)
    assert store.find("pretrain", KEY) is None
    path = build(store)
    assert path == store.find("pretrain", KEY, thorough=True) == tmp_path / "pretrain" / KEY
    assert not store.partial("pretrain", KEY).exists()
    manifest = files.read_json(store.path("pretrain", KEY) / "manifest.json")
    assert manifest["config"] == {"lr": 0.1}
    assert manifest["upstream"] == ["k1"]
    assert manifest["created"]
    assert manifest["files"]["checkpoints/last"] == {"link": "step_1"}
    assert manifest["files"]["checkpoints/step_1/model"]["bytes"] == 7


def test_a_partial_build_survives_and_is_not_found(tmp_path) -> None:
    folder = ArtifactStore(tmp_path).open("pretrain", KEY)
    (folder / "metrics.jsonl").write_text("{}\n")
    (folder / "manifest.json").write_text("{}")  # killed between manifest and rename
    store = ArtifactStore(tmp_path)
    assert store.find("pretrain", KEY) is None
    assert (store.open("pretrain", KEY) / "metrics.jsonl").read_text() == "{}\n"
    build(store)
    assert set(files.read_json(store.path("pretrain", KEY) / "manifest.json")["files"]) == {
        "metrics.jsonl",
        "checkpoints/last",
        "checkpoints/step_1/model",
    }


@pytest.mark.parametrize(
    ("damage", "thorough"),
    [
        (lambda p: (p / "checkpoints/step_1/model").write_text("torn"), False),
        (lambda p: (p / "checkpoints/step_1/model").write_text("WEIGHTS"), True),
        (lambda p: (p / "checkpoints/step_1/model").unlink(), False),
        (lambda p: (p / "checkpoints/last").unlink(), False),
        (lambda p: (p / "manifest.json").unlink(), False),
        (lambda p: (p / "manifest.json").write_text('{"files"'), False),
        (lambda p: (p / "manifest.json").write_text("[]"), False),
    ],
)
def test_damage_is_set_aside_and_rebuilt(tmp_path, damage, thorough: bool) -> None:
    said: list[str] = []
    store = ArtifactStore(tmp_path, said.append)
    damage(build(store))
    if thorough:
        assert store.find("pretrain", KEY) is not None  # the quick look cannot see it
    assert store.find("pretrain", KEY, thorough=thorough) is None
    assert len(said) == 1
    assert "damaged" in said[0]
    assert (tmp_path / "pretrain" / f"{KEY}.damaged-1" / "checkpoints").is_dir()
    assert build(store) == store.find("pretrain", KEY, thorough=True)


def _builder(root: str, started, builds) -> None:
    store = ArtifactStore(root)
    started.wait()
    with store.building("pretrain", KEY) as found:
        if found is None:
            time.sleep(0.2)
            with builds.get_lock():
                builds.value += 1
            build(store)
    assert store.find("pretrain", KEY) is not None


def test_two_processes_build_once(tmp_path) -> None:
    context = multiprocessing.get_context("fork")
    started, builds = context.Barrier(3), context.Value("i", 0)
    workers = [context.Process(target=_builder, args=(str(tmp_path), started, builds)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(20)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert builds.value == 1


def test_the_lock_is_free_after_a_failure(tmp_path) -> None:
    store = ArtifactStore(tmp_path)
    with pytest.raises(RuntimeError), store.building("pretrain", KEY):
        raise RuntimeError
    with store.building("pretrain", KEY) as found:
        assert found is None

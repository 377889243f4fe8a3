from __future__ import annotations

import copy
import importlib.metadata
import subprocess

import pytest
import torch

from llm.runs import provenance
from llm.types import ConfigError


def git(folder, *arguments: str) -> str:
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false")
    done = subprocess.run(
        ["git", "-C", str(folder), *identity, *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path):
    """A small project with a commit, an uncommitted change, and untracked files."""
    folder = tmp_path / "project"
    (folder / "llm").mkdir(parents=True)
    git(folder, "init", "-q")
    (folder / ".gitignore").write_text("runs/\n")
    (folder / "llm" / "__init__.py").write_text("")
    (folder / "llm" / "a.py").write_text("x = 1\n")
    (folder / "llm" / "data.bin").write_bytes(bytes(range(256)))
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "first")
    (folder / "llm" / "a.py").write_text("x = 2\n")
    (folder / "llm" / "data.bin").write_bytes(bytes(range(255, -1, -1)))
    (folder / "llm" / "b.py").write_text("y = 'é'\r\n")
    (folder / "photo.jpg").write_bytes(b"\xff\xd8")
    (folder / ".env").write_text("SECRET=1")
    (folder / "runs").mkdir()
    (folder / "runs" / "x.py").write_text("ignored")
    return folder


def test_git_state(checkout) -> None:
    state = provenance.git_state(checkout)
    assert state["commit"] == git(checkout, "rev-parse", "HEAD")
    assert "+x = 2" in state["diff"]
    assert list(state["untracked"]) == ["llm/b.py"]
    assert state["untracked"]["llm/b.py"]["text"] == "y = 'é'\r\n"
    assert state["reason"] is None


def test_large_untracked_sources_keep_their_digest(checkout) -> None:
    (checkout / "llm" / "big.py").write_text("#" * 200_000)
    entry = provenance.git_state(checkout)["untracked"]["llm/big.py"]
    assert entry["text"] is None
    assert entry["bytes"] == 200_000
    with pytest.raises(ConfigError, match="too large") as caught:
        provenance.restore_code({"git": provenance.git_state(checkout)}, checkout.parent / "r", checkout)
    assert caught.value.key == "restore_code"


def test_before_the_first_commit(tmp_path) -> None:
    (tmp_path / "llm").mkdir()
    (tmp_path / "llm" / "__init__.py").write_text("staged = 1\n")
    (tmp_path / "main.py").write_text("")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "llm")
    state = provenance.git_state(tmp_path)
    assert state["commit"] is None
    assert "+staged = 1" in state["diff"]
    assert list(state["untracked"]) == ["main.py"]


def test_outside_a_checkout(tmp_path, monkeypatch) -> None:
    (tmp_path / "llm").mkdir()
    assert provenance.git_state(tmp_path)["commit"] is None
    assert "not a git checkout" in provenance.git_state(tmp_path)["reason"]
    monkeypatch.setenv("PATH", "")  # no git at all
    record = provenance.collect(tmp_path)
    assert record["git"]["commit"] is None
    assert provenance.drift(record, record) == []


def test_a_package_installed_inside_another_repository(checkout) -> None:
    site = checkout / "runs" / "site-packages"
    (site / "llm").mkdir(parents=True)
    (site / "llm" / "__init__.py").write_text("")
    state = provenance.git_state(site)
    assert state["commit"] is None
    assert "not itself tracked" in state["reason"]


def test_collect_says_what_matters(monkeypatch) -> None:
    monkeypatch.setenv("MY_SECRET_TOKEN", "hunter2")
    record = provenance.collect()
    assert record["packages"]["torch"] == importlib.metadata.version("torch")
    assert {"torch", "numpy", "omegaconf"} <= set(record["dependencies"])
    assert not {"pytest", "ruff"} & set(record["dependencies"])
    assert record["threads"] == torch.get_num_threads()
    assert record["device"]["type"] in ("cpu", "cuda")
    assert "MY_SECRET_TOKEN" not in record["environment"]
    del record["git"]  # holds this very file while it is untracked
    assert "hunter2" not in str(record)


def test_drift_names_each_difference(checkout) -> None:
    saved = {
        "git": provenance.git_state(checkout),
        "python": "3.11.0",
        "packages": {"torch": "2.13", "ruff": "1"},
    }
    saved["dependencies"] = ["torch"]
    assert provenance.drift(saved, copy.deepcopy(saved)) == []
    (checkout / "llm" / "a.py").write_text("x = 3\n")
    (checkout / "llm" / "b.py").write_text("y = 2\n")
    (checkout / "llm" / "c.py").write_text("z = 2\n")
    now = {**saved, "git": provenance.git_state(checkout), "packages": {"torch": "2.14", "ruff": "2"}}
    assert provenance.drift(saved, now) == [
        "uncommitted changes of llm/a.py: other then than now",
        "untracked source llm/b.py: other then than now",
        "untracked source llm/c.py: new since",
        "package torch: 2.13 then, 2.14 now",
    ]
    git(checkout, "add", ".")
    git(checkout, "commit", "-qm", "second")
    lines = provenance.drift(saved, {**saved, "git": provenance.git_state(checkout), "python": "3.12.0"})
    assert lines[0].startswith(f"commit: {saved['git']['commit'][:10]} then, ")
    assert "uncommitted changes of llm/a.py: there then, gone now" in lines
    assert "untracked source llm/b.py: there then, gone now" in lines
    assert "python: 3.11.0 then, 3.12.0 now" in lines


def test_surroundings() -> None:
    saved = {"platform": "Linux", "device": {"type": "cpu", "cpu": "A"}, "threads": 2}
    now = {"platform": "Linux", "device": {"type": "cuda", "cpu": "A"}, "threads": 1}
    assert provenance.surroundings(saved, saved) == []
    assert provenance.surroundings(saved, now) == [
        "device type: cpu then, cuda now",
        "threads: 2 then, 1 now",
    ]


def test_restore_code_rebuilds_the_tree(checkout, tmp_path) -> None:
    saved = {"git": provenance.git_state(checkout)}
    want = {name: (checkout / name).read_bytes() for name in ("llm/a.py", "llm/b.py", "llm/data.bin")}
    git(checkout, "checkout", "-q", ".")
    (checkout / "llm" / "b.py").unlink()
    git(checkout, "commit", "-q", "--allow-empty", "-m", "second")
    status = git(checkout, "status", "--porcelain")
    # Also inside the checkout, where git would take the surrounding repository for the target.
    for place in (tmp_path / "restored", checkout / "runs" / "restored"):
        provenance.restore_code(saved, place, checkout)
        assert {name: (place / name).read_bytes() for name in want} == want
    assert git(checkout, "status", "--porcelain") == status
    with pytest.raises(ConfigError, match="not empty"):
        provenance.restore_code(saved, tmp_path / "restored", checkout)
    saved["git"]["commit"] = "0" * 40
    with pytest.raises(ConfigError, match="fetch it"):
        provenance.restore_code(saved, tmp_path / "other", checkout)


def test_restore_code_stays_inside(checkout, tmp_path) -> None:
    saved = {"git": provenance.git_state(checkout)}
    saved["git"]["untracked"]["../evil.py"] = {"text": "x", "bytes": 1, "sha256": ""}
    with pytest.raises(ConfigError, match="outside"):
        provenance.restore_code(saved, tmp_path / "restored", checkout)
    assert not (tmp_path / "evil.py").exists()

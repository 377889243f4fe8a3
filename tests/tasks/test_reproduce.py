"""reproduce=RUN_DIR: what has drifted is said, the run is made anew, and the verdict is to the last bit."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from functools import partial
from itertools import takewhile
from pathlib import Path

import pytest

from llm import runtime
from llm.config import Invocation, compose
from llm.runs.directory import read
from llm.tasks import reproduce
from llm.types import ConfigError
from tests.conftest import REPOSITORY, Main

TINY = (
    "task=pretrain",
    "data=text",
    "data.seq_len=16",
    "tokenizer=byte",
    "tracker=none",
    "model.d_model=8",
    "model.n_layers=1",
    "model.n_heads=2",
    "model.dropout=0.1",
    "schedule=constant",
    "schedule.warmup_steps=${model.n_layers}",  # stays an interpolation in what is recorded
    "trainer.max_steps=4",
    "trainer.batch_size=2",
    "trainer.eval_every_steps=2",
    "trainer.eval_batches=2",
)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory, text: str) -> Path:
    home = tmp_path_factory.mktemp("saved")
    done = Main(home)(*TINY, text)
    assert done.code == 0, done.err
    (run,) = (home / "runs" / "pretrain").iterdir()
    return run


@pytest.fixture
def copy(saved: Path, tmp_path: Path) -> Path:
    """The saved run somewhere else, to be changed."""
    return Path(shutil.copytree(saved, tmp_path / "copy", symlinks=True))


def rewrite(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def said(done: Main.Done, head: str) -> list[str]:
    """The indented lines under a head line."""
    lines = done.err.partition(head)[2].splitlines()[1:]
    return [line.strip() for line in takewhile(lambda line: line.startswith("  "), lines)]


def test_it_runs_in_a_fresh_directory_and_leaves_the_old_one_alone(main: Main, saved: Path) -> None:
    before = {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in saved.rglob("*") if p.is_file()}
    done = main(f"reproduce={saved}", "tracker=none", "allow_drift=true")
    assert done.code == 0, done.err
    assert {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in saved.rglob("*") if p.is_file()} == before
    (new,) = (main.home / "runs" / "pretrain-reproduced").iterdir()
    verdict = json.loads((new / "reproduction.json").read_text())
    assert verdict["of"] == str(saved)
    assert verdict["equal"] is True
    assert "reproduced: bitwise equal at every one of 5 logged steps" in done.err
    assert "reproduced: reproduced" not in done.err
    assert read(new).result["weights_sha256"] == read(saved).result["weights_sha256"]


def test_nothing_but_code_in_work_drifts_at_once(main: Main, saved: Path) -> None:
    done = main(f"reproduce={saved}", "tracker=none", "allow_drift=true", "name=again")
    drift = said(done, "drift since that run:")
    assert all(line.startswith("code ") for line in drift) or drift == ["none"]
    assert "deterministic_algorithms" not in done.err  # every run sets such flags: they are not the machine's
    assert (main.home / "runs" / "again").is_dir()


def test_a_changed_config_is_drift_and_the_saved_one_counts(main: Main, copy: Path) -> None:
    rewrite(copy / "config.yaml", "lr: 0.001", "lr: 0.002")
    done = main(f"reproduce={copy}", "tracker=none")
    assert done.code == 2
    assert "config optimizer.lr: was 0.002, is 0.001" in said(done, "drift since that run:")
    assert f"error: reproduce={copy}: " in done.err
    assert not (main.home / "runs").exists()
    done = main(f"reproduce={copy}", "tracker=none", "allow_drift=true", "run_dir=new")
    assert done.code == 3, done.err
    assert "not reproduced: first difference at step 1: " in done.err
    assert read(main.home / "new").config["optimizer"]["lr"] == 0.002
    assert json.loads((main.home / "new" / "reproduction.json").read_text())["equal"] is False


def test_changed_data_is_drift(main: Main, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("To be, or not to be, that is the question.\n" * 40)
    assert main(*TINY, f"data.path={text}", "run_dir=run").code == 0
    then = hashlib.sha256(text.read_bytes()).hexdigest()
    assert read(main.home / "run").provenance["data"] == {"data": then}
    text.write_text(text.read_text() + "changed")
    now = hashlib.sha256(text.read_bytes()).hexdigest()
    done = main("reproduce=run", "tracker=none")
    assert done.code == 2
    assert said(done, "drift since that run:") == [f"data: sha256 {then[:12]}... then, {now[:12]}... now"]
    text.unlink()
    done = main("reproduce=run", "tracker=none")
    assert done.code == 2
    assert f"error: data.path={text}: no such file" in done.err


def test_a_renamed_option_is_drift_not_a_crash(main: Main, copy: Path) -> None:
    rewrite(copy / ".hydra" / "overrides.yaml", "tokenizer=byte", "tokenizer=bites")
    done = main(f"reproduce={copy}", "tracker=none")
    assert done.code == 2
    assert any("tokenizer" in line and "unknown now" in line for line in said(done, "drift since that run:"))


def test_a_lost_command_line_is_drift_not_a_crash(main: Main, copy: Path) -> None:
    shutil.rmtree(copy / ".hydra")
    done = main(f"reproduce={copy}", "tracker=none")
    assert done.code == 2
    assert "config of its command line: was written down, is lost" in said(done, "drift since that run:")


def test_other_weights_alone_are_a_difference(main: Main, copy: Path) -> None:
    rewrite(copy / "result.json", read(copy).result["weights_sha256"], "0" * 64)
    done = main(f"reproduce={copy}", "tracker=none", "allow_drift=true")
    assert done.code == 3
    assert "weights_sha256" in done.err


def test_code_that_changed_within_the_run_is_drift(main: Main, copy: Path) -> None:
    provenance = json.loads((copy / "provenance.json").read_text())
    earlier = {**provenance, "git": {**provenance["git"], "commit": "0" * 40}}
    (copy / "provenance.json").write_text(json.dumps({**provenance, "earlier_sessions": [earlier]}))
    done = main(f"reproduce={copy}", "tracker=none")
    assert done.code == 2
    drift = said(done, "drift since that run:")
    assert any(line.startswith("within that run, commit: 0000000000 then") for line in drift)


@pytest.mark.parametrize("status", ["interrupted", "failed", "running"])
def test_an_unfinished_run_has_nothing_to_compare_with(main: Main, copy: Path, status: str) -> None:
    rewrite(copy / "result.json", '"status": "done"', f'"status": "{status}"')
    done = main(f"reproduce={copy}", "tracker=none", "allow_drift=true")
    assert done.code == 2
    assert f"error: reproduce={copy}: that run is {status}: bring it to its end by resume= first" in done.err


def test_a_prompt_with_every_awkward_character_is_no_drift(main: Main, saved: Path) -> None:
    prompt = "(a), \"'b=${s}"
    done = main("task=generate", "tracker=none", f"checkpoint={saved}", f"prompt={prompt}",
                "generation.max_new_tokens=3", "run_dir=written")  # fmt: skip
    assert done.code == 0, done.err
    done = main("reproduce=written", "tracker=none", "allow_drift=true", "run_dir=again")
    drift = said(done, "drift since that run:")
    assert not [line for line in drift if line.startswith("config ")]
    assert done.code == 0, done.err
    assert read(main.home / "again").config["prompt"] == prompt


def test_torchrun_is_left_to_the_relaunch(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "world_size", lambda: 2)
    config = compose(["task=pretrain", f"reproduce={saved}", "allow_drift=true"])
    with pytest.raises(ConfigError, match="that run had 1 of torchrun's processes, not 2"):
        reproduce.reproduce(str(saved), config, Invocation({}, [], {}, False))


# ----------------------------------------------------------------------------- restore_code


def git(checkout: Path, *arguments: str) -> None:
    who = ("-c", "user.name=test", "-c", "user.email=test@example.org")
    subprocess.run(["git", "-C", str(checkout), *who, *arguments], check=True, capture_output=True)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of its own with this code, to be changed."""
    place = tmp_path_factory.mktemp("checkout") / "code"
    place.mkdir()
    for name in ("llm", "conf", "experiments", "sweeps", "hydra_plugins"):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPOSITORY / name, place / name, symlinks=True, ignore=ignore)
    for name in ("main.py", "pyproject.toml"):
        shutil.copy2(REPOSITORY / name, place / name)
    git(place, "init", "--quiet")
    git(place, "add", ".")
    git(place, "commit", "--quiet", "-m", "as it is")
    return place


def command_of(checkout: Path, home: Path, *arguments: str) -> Main.Done:
    """The other checkout's command line, in a process."""
    done = subprocess.run(
        [sys.executable, str(checkout / "main.py"), *arguments],
        cwd=home,
        capture_output=True,
        text=True,
        timeout=300,
    )
    return Main.Done(done.returncode, done.stdout, done.stderr)


@pytest.mark.slow
def test_changed_code_is_restored_and_reproduces(main: Main, checkout: Path, text: str) -> None:
    """The run had uncommitted and untracked code; then both, and the commit, are changed."""
    tracked, untracked = checkout / "llm/optimizers/schedules.py", checkout / "llm/optimizers/mine.py"
    tracked.write_text(
        tracked.read_text() + "\n\nfrom llm.optimizers.mine import SCALE  # noqa: E402\n\n\n"
        "def constant(step: int, total_steps: int, *, warmup_steps: int = 0) -> float:\n"
        "    return SCALE * 1.5\n"
    )
    untracked.write_text("SCALE = 0.5\n")
    other = partial(command_of, checkout, main.home)
    done = other(*TINY, text, "run_dir=run")
    assert done.code == 0, done.err
    assert read(main.home / "run").metrics[-1]["lr"] == 0.001 * 0.75

    rewrite(tracked, "SCALE * 1.5", "SCALE * 2.5")
    git(checkout, "add", str(tracked))
    git(checkout, "commit", "--quiet", "-m", "another schedule")
    rewrite(untracked, "0.5", "0.25")
    done = other("reproduce=run", "tracker=none", "restore_code=true", "run_dir=again")
    assert done.code == 0, done.err
    drift = said(done, "drift since that run:")
    assert any("commit: " in line for line in drift)
    assert any("llm/optimizers/schedules.py" in line for line in drift)
    assert "code untracked source llm/optimizers/mine.py: other then than now" in drift
    assert "running the code of that run in " in done.err
    assert "reproduced: bitwise equal" in done.err
    assert "SCALE * 2.5" in tracked.read_text()  # the checkout stays as it is
    assert untracked.read_text() == "SCALE = 0.25\n"

"""reproduce=RUN_DIR: run a saved config again, in a fresh directory, and say whether it came out the same."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from llm import runtime
from llm.config import REPOSITORY, Invocation, compose, migrate, resolved
from llm.reports import compare
from llm.runs import directory, files, provenance
from llm.runs.directory import RunRecord
from llm.tasks.execute import Outcome, differences, execute, run_name
from llm.types import ConfigError, NotReproduced


def reproduce(source: str, config: DictConfig, invocation: Invocation) -> Outcome:
    """Runs the saved config of `source` again and compares every logged step.

    Args:
        source: The run's directory.
        config: What the command line composed; only its entry keys are used.
        invocation: What Hydra knows of this command.

    Raises:
        ConfigError: `source` is no finished run, or code or configs have changed and `allow_drift` is false.
        NotReproduced: some step or the final weights differ.
    """
    record = directory.read(source, key="reproduce")
    if not record.metrics and record.status != "done":
        raise ConfigError(
            "reproduce", source, f"that run is {record.status}: there is no result to compare with"
        )
    saved = OmegaConf.create(migrate(record.config))
    assert isinstance(saved, DictConfig)
    drift = [f"config {k}: was {a}, is {b}" for k, a, b in config_drift(record, saved)]
    here = provenance.collect()
    drift += [f"code {line}" for line in provenance.drift(record.provenance, here)]
    if runtime.is_main():
        print("drift since that run:", *(drift or ["none"]), sep="\n  ", file=sys.stderr)
        machine = provenance.surroundings(record.provenance, here)
        if machine:
            print(
                "another machine (no drift, but the last bits may differ):",
                *machine,
                sep="\n  ",
                file=sys.stderr,
            )
    if drift and config.restore_code:
        raise SystemExit(_in_restored_code(record))
    if drift and not config.allow_drift:
        raise ConfigError("reproduce", source, f"{len(drift)} things have changed since (listed above): "
                          "add allow_drift=true, or restore_code=true")  # fmt: skip
    processes = int(record.provenance.get("world_size", 1))
    if processes != runtime.world_size():
        raise SystemExit(_relaunch(processes))
    torch.set_num_threads(int(record.provenance.get("threads") or torch.get_num_threads()))
    for key in ("run_dir", "tracker", "name"):
        OmegaConf.update(saved, key, config.get(key), force_add=True)
    saved.name = config.name or f"{record.config.get('name') or run_name(saved, invocation)}-reproduced"
    if "resume" in saved:
        saved.resume = None
    if "artifacts" in saved:  # nothing may come out of the store that the saved run filled
        saved.artifacts = None
    outcome = execute(saved, invocation)
    if runtime.is_main():
        _judge(record, directory.read(outcome.directory))
    return outcome


def config_drift(record: RunRecord, saved: DictConfig) -> list[tuple[str, Any, Any]]:
    """What today's configs compose for that run's command line, against what it saved."""
    overrides = OmegaConf.load(record.directory / ".hydra" / "overrides.yaml")
    given = [str(o) for o in overrides if not str(o).startswith(("hydra.", "sweeps="))]
    try:
        return differences(resolved(saved), resolved(compose(given)))
    except ConfigError as error:
        return [(error.key, "known", f"unknown now ({error.mend})")]


def _judge(record: RunRecord, new: RunRecord) -> None:
    verdict = compare.bitwise_runs(record, new)
    verdict_file = {"of": str(record.directory), "equal": verdict.equal, "verdict": str(verdict)}
    files.write_json(new.directory / "reproduction.json", verdict_file)
    if not verdict.equal:
        raise NotReproduced(str(verdict))
    print(f"reproduced: {verdict}", file=sys.stderr)


def _relaunch(processes: int) -> int:
    """The same command under as many processes as the saved run had."""
    environment = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    command = [sys.executable]
    if processes > 1:
        command += ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    print(f"that run had {processes} processes: starting as many", file=sys.stderr)
    return subprocess.run([*command, str(REPOSITORY / "main.py"), *sys.argv[1:]], env=environment).returncode


def _in_restored_code(record: RunRecord) -> int:
    """Runs this command with the code of that run, laid out in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="restored-") as folder:
        place = Path(folder) / "code"
        provenance.restore_code(record.provenance, place)
        arguments = [
            a for a in sys.argv[1:] if not a.startswith(("restore_code=", "reproduce=", "allow_drift="))
        ]
        print(f"running the code of that run in {place}", file=sys.stderr)
        command = [sys.executable, str(place / "main.py"), f"reproduce={record.directory}", *arguments]
        environment = {**os.environ, "PYTHONPATH": str(place)}
        return subprocess.run([*command, "allow_drift=true"], env=environment).returncode

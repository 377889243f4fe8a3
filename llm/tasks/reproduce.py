"""reproduce=RUN_DIR: run a saved config again, in a fresh directory, and say whether it came out the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from llm import files, runtime
from llm.config import REPOSITORY, Invocation, compose, escaped, recorded_overrides, resolved
from llm.migrations import migrate
from llm.reports import compare
from llm.runs import directory, provenance
from llm.runs.directory import RunRecord
from llm.tasks.execute import Outcome, agreed, data_digests, differences, execute, outside_code, run_name
from llm.types import ConfigError, NotReproduced


def reproduce(source: str, config: DictConfig, invocation: Invocation) -> Outcome:
    """Runs the saved config of `source` again and compares every logged step.

    Args:
        source: The run's directory.
        config: What the command line composed; only its entry keys are used.
        invocation: What Hydra knows of this command.

    Raises:
        ConfigError: `source` is no finished run, or code, configs or data have changed and
            `allow_drift` is false.
        NotReproduced: some step or the final weights differ.
    """
    record, drift = agreed(lambda: _saved(source))
    if drift and config.restore_code:
        raise SystemExit(_in_restored_code(record))
    if drift and not config.allow_drift:
        things = "1 thing has" if len(drift) == 1 else f"{len(drift)} things have"
        raise ConfigError("reproduce", source, f"{things} changed since (listed above): "
                          "add allow_drift=true, or restore_code=true")  # fmt: skip
    processes = int(record.provenance.get("world_size", 1))
    if processes != runtime.world_size():
        if runtime.world_size() > 1:
            raise ConfigError("reproduce", source, f"that run had {processes} of torchrun's processes, not "
                              f"{runtime.world_size()}: leave torchrun out, as many are started")  # fmt: skip
        raise SystemExit(_relaunch(processes))
    torch.set_num_threads(int(record.provenance.get("threads") or torch.get_num_threads()))
    outcome = execute(_fresh(record, config, invocation), invocation)
    if runtime.is_main():
        _judge(record, directory.read(outcome.directory))
    return outcome


def _saved(source: str) -> tuple[RunRecord, list[str]]:
    """The run, and what has changed since, which is also said."""
    record = directory.read(source, key="reproduce")
    if record.status != "done":
        mend = f"that run is {record.status}: bring it to its end by resume= first"
        raise ConfigError("reproduce", source, mend)
    typed = [str(argument) for argument in record.provenance.get("argv") or ()]
    if "--config-dir" in typed[:-1] and "--config-dir" not in sys.argv:
        mend = f"that run had configs of its own: add --config-dir {typed[typed.index('--config-dir') + 1]}"
        raise ConfigError("reproduce", source, mend)
    drift = [f"config {k}: was {a}, is {b}" for k, a, b in config_drift(record)]
    runtime.seed_everything(int(record.config.get("seed") or 0))  # sets flags, which that run had set too
    here = provenance.collect()
    drift += [f"code {line}" for line in provenance.drift(record.provenance, here)]
    drift += _data_drift(record)
    for session in record.provenance.get("earlier_sessions", []):
        drift += [f"within that run, {line}" for line in provenance.drift(session, record.provenance)]
    print("drift since that run:", *(drift or ["none"]), sep="\n  ", file=sys.stderr)
    machine = provenance.surroundings(record.provenance, here)
    if machine:
        head = "another machine (no drift, but the last bits may differ):"
        print(head, *machine, sep="\n  ", file=sys.stderr)
    return record, drift


def _data_drift(record: RunRecord) -> list[str]:
    """Which of the data and of the code from outside that the saved run read has another digest now."""
    then, config = record.provenance.get("data") or {}, migrate(record.config)
    found = []
    for path, digest in (*outside_code(config), *data_digests(config)):
        name = path.removeprefix("stages.")  # a lifecycle's record names its stages
        if name in then and then[name] != digest:
            found.append(f"{path}: sha256 {then[name][:12]}... then, {digest[:12]}... now")
    return found


def _fresh(record: RunRecord, config: DictConfig, invocation: Invocation) -> DictConfig:
    """The saved config, for a new run that takes nothing from the old one."""
    saved = OmegaConf.create(escaped(migrate(record.config)))
    assert isinstance(saved, DictConfig)
    for key in ("run_dir", "tracker", "name"):
        OmegaConf.update(saved, key, config.get(key), force_add=True, merge=False)
    saved.name = config.name or f"{record.config.get('name') or run_name(saved, invocation)}-reproduced"
    if "resume" in saved:
        saved.resume = None
    if "artifacts" in saved:  # nothing may come out of the store that the saved run filled
        saved.artifacts = None
    return saved


def config_drift(record: RunRecord) -> list[tuple[str, Any, Any]]:
    """What today's configs compose for that run's command line, against what it saved."""
    try:
        now = resolved(compose(recorded_overrides(record.directory), are_recorded=True))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError):
        return [("of its command line", "written down", "lost")]
    except ConfigError as error:
        return [(error.key, "known", f"unknown now ({error.mend})")]
    return differences(migrate(record.config), now)


def _judge(record: RunRecord, new: RunRecord) -> None:
    verdict = compare.bitwise_runs(record, new)
    verdict_file = {"of": str(record.directory), "equal": verdict.equal, "verdict": str(verdict)}
    files.write_json(new.directory / "reproduction.json", verdict_file)
    if not verdict.equal:
        raise NotReproduced(str(verdict).removeprefix("not reproduced: "))
    print(verdict, file=sys.stderr)


def _relaunch(processes: int) -> int:
    """The same command under as many processes as the saved run had, as torchrun would start them."""
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    print(f"that run had {processes} processes: starting as many", file=sys.stderr)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    how = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
    )
    try:
        elastic_launch(how, sys.executable)(str(REPOSITORY / "main.py"), *sys.argv[1:])
    except ChildFailedError as error:  # torchrun itself would make one code of all: 1
        return int(error.get_first_failure()[1].exitcode)
    except SignalException:
        return 130
    return 0


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

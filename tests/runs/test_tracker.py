"""The real Weights & Biases, offline; its `.wandb` files are read back with its own protobufs."""

from __future__ import annotations

import json
import math
import struct
import sys
import zlib
from functools import partial
from pathlib import Path

import pytest

from llm.runs.run import Run
from llm.runs.session import session
from llm.runs.tracker import NoTracker, WandbTracker, _logged_in

CONFIG = {
    "name": "demo",
    "seed": 7,
    "model": {"_target_": "llm.models.decoder.Decoder", "d_model": 128},
    "lr": 3e-4,
}


@pytest.fixture(autouse=True)
def _nobody_is_logged_in(monkeypatch, tmp_path) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL", "WANDB_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))


def records(path: Path) -> list:
    """The records of a `.wandb` file: LevelDB's log format (blocks of 32 KiB) behind a header of 7 bytes."""
    from wandb.proto import wandb_internal_pb2

    data = path.read_bytes()
    assert data[:4] == b":W&B"
    offset, parts, found = 7, [], []
    while offset + 7 <= len(data):
        room = 32768 - offset % 32768
        if room < 7:  # a header does not fit: the rest of the block is padding
            offset += room
            continue
        checksum, length, kind = struct.unpack("<IHB", data[offset : offset + 7])
        payload = data[offset + 7 : offset + 7 + length]
        assert checksum == zlib.crc32(bytes([kind]) + payload)
        parts.append(payload)
        offset += 7 + length
        if kind in (1, 4):  # FULL or LAST
            record = wandb_internal_pb2.Record()
            record.ParseFromString(b"".join(parts))
            found.append(record)
            parts = []
    assert not parts, "the file ends inside a record"
    return found


def the_run(directory: Path) -> tuple[list, Path]:
    (file,) = (directory / "wandb").glob("offline-run-*/*.wandb")
    return records(file), file.parent / "files"


def history(found: list) -> list[dict]:
    lines = []
    for record in found:
        if record.WhichOneof("record_type") == "history":
            items = {"/".join(item.nested_key) or item.key: item.value_json for item in record.history.item}
            lines.append({key: json.loads(value) for key, value in items.items()})
    return lines


def test_a_run_is_all_there(tmp_path) -> None:
    values = [1 / 3, 2.5, float("nan")]
    with session(
        {**CONFIG, "run_dir": str(tmp_path / "r")}, tracker=partial(WandbTracker, group="sweep")
    ) as run:
        stage = run.at_stage("pretrain", tmp_path / "stage")
        for step, value in enumerate(values):
            stage.log({"loss": value}, step=10 * step)
        stage.log_table("samples", ["prompt", "text", "score"], [["a", "b", 1], ["c", "d", 0.5]])
        stage.summary["val_loss"] = 1.25
    found, media = the_run(run.directory)
    kinds = [record.WhichOneof("record_type") for record in found]

    (info,) = (record.run for record in found if record.WhichOneof("record_type") == "run")
    config = {item.key: json.loads(item.value_json) for item in info.config.update}
    assert config["model"] == CONFIG["model"]
    assert config["lr"] == 3e-4
    assert config["seed"] == 7
    assert info.run_group == "sweep"
    assert info.project == "llm"
    assert info.display_name == "demo-r"

    lines = history(found)
    logged = [(line["pretrain/step"], line["pretrain/loss"]) for line in lines if "pretrain/loss" in line]
    assert [step for step, _ in logged] == [0, 10, 20]
    assert [value for _, value in logged[:2]] == values[:2]
    assert math.isnan(float(logged[2][1]))
    axes = {r.metric.name or r.metric.glob_name: r.metric.step_metric for r in found if r.HasField("metric")}
    assert axes["pretrain/*"] == "pretrain/step"

    (table,) = (line for line in lines if "pretrain/samples/path" in line)
    assert table["pretrain/samples/_type"] == "table-file"
    content = json.loads((media / table["pretrain/samples/path"]).read_text())
    assert content["columns"] == ["prompt", "text", "score"]
    assert content["data"] == [["a", "b", 1], ["c", "d", 0.5]]

    summary = {
        "/".join(item.nested_key) or item.key: json.loads(item.value_json)
        for record in found
        if record.WhichOneof("record_type") == "summary"
        for item in record.summary.update
    }
    assert summary["metrics/pretrain/val_loss"] == 1.25
    assert kinds.count("exit") == 1
    assert next(record.exit.exit_code for record in found if record.HasField("exit")) == 0


def test_two_runs_of_one_process_are_two_runs_there(tmp_path) -> None:
    for name in ("one", "two"):
        with session({**CONFIG, "run_dir": str(tmp_path / name)}, tracker=WandbTracker) as run:
            run.log({"loss": float(len(name) + (name == "two"))}, step=1)
    ids = set()
    for name, value in (("one", 3.0), ("two", 4.0)):
        found, _ = the_run(tmp_path / name)
        assert [line["loss"] for line in history(found) if "loss" in line] == [value]
        ids.add(next(record.run.run_id for record in found if record.HasField("run")))
        assert any(record.HasField("exit") for record in found)
    assert len(ids) == 2


def test_finished_also_on_failure(tmp_path) -> None:
    def task() -> None:
        with session({**CONFIG, "run_dir": str(tmp_path / "r")}, tracker=WandbTracker) as run:
            run.log({"loss": 1.0}, step=1)
            raise RuntimeError("boom")

    with pytest.raises(RuntimeError):
        task()
    found, _ = the_run(tmp_path / "r")
    assert [record.exit.exit_code for record in found if record.HasField("exit")] == [1]
    assert [line["loss"] for line in history(found) if "loss" in line] == [1.0]


def test_quiet(tmp_path, capfd) -> None:
    tracker = WandbTracker(directory=tmp_path, config=CONFIG, name="x")
    tracker.log({"loss": 1.0}, step=1, stage=None)
    tracker.log_table("t", ["mixed", "none"], [[1, None], ["a", None]], stage=None)
    tracker.finish({}, exit_code=0)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("broken", ["import", "init", "log", "finish"])
def test_a_failing_tracker_costs_one_line_and_no_run(tmp_path, monkeypatch, broken: str, capsys) -> None:
    class Failing:
        offline = True

        def __getattr__(self, name):
            def call(*arguments, **more):
                if name == broken:
                    raise ConnectionError("no route\nto host")

            return call

        summary: dict = {}  # noqa: RUF012

    if broken == "import":
        monkeypatch.setitem(sys.modules, "wandb", None)
    else:
        import wandb

        def init(**more):
            if broken == "init":
                raise ConnectionError("no route\nto host")
            return Failing()

        monkeypatch.setattr(wandb, "init", init)
    with session({**CONFIG, "run_dir": str(tmp_path / "r")}, tracker=WandbTracker) as run:
        for step in range(3):
            run.log({"loss": 1.0}, step=step)
    err = capsys.readouterr().err
    assert err.count("warning") == 1
    assert len(err.splitlines()) == 1
    assert (run.directory / "done.json").is_file()
    assert len((run.directory / "metrics.jsonl").read_text().splitlines()) == 3


def test_online_only_when_logged_in(tmp_path, monkeypatch) -> None:
    import wandb

    modes: list[str] = []
    monkeypatch.setattr(wandb, "init", lambda **more: modes.append(more["mode"]))
    make = partial(WandbTracker, directory=tmp_path, config={}, name="x")
    make()
    assert not _logged_in()
    monkeypatch.setenv("WANDB_API_KEY", "k")
    make()
    make(mode="offline")
    monkeypatch.setenv("WANDB_MODE", "offline")
    make()
    make(mode="online")
    monkeypatch.delenv("WANDB_API_KEY")
    monkeypatch.delenv("WANDB_MODE")
    (tmp_path / "netrc").write_text("machine api.wandb.ai\n  login user\n  password k\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    make()
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    make()
    assert modes == ["offline", "online", "offline", "offline", "online", "online", "offline"]


def test_nobody(tmp_path) -> None:
    run = Run(tmp_path, tracker=NoTracker(directory=tmp_path, config={}, name="x"))
    run.log({"loss": 1.0}, step=1)
    run.tracker.finish({}, exit_code=0)
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]

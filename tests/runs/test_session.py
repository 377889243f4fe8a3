from __future__ import annotations

import pytest

from llm import files
from llm.runs import directory
from llm.runs.session import session
from llm.types import ConfigError

CONFIG = {"name": "demo", "seed": 7, "lr": 3e-4}


class Watch:
    def __init__(self, **arguments) -> None:
        self.arguments, self.ended = arguments, None
        Watch.latest = self

    def log(self, metrics, *, step, stage) -> None:
        pass

    def log_table(self, *arguments, stage) -> None:
        pass

    def finish(self, summary, *, exit_code) -> None:
        self.ended = exit_code


def test_a_good_run(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with session(CONFIG, overrides=["lr=3e-4"], tracker=Watch, group="g") as run:
        assert directory.read(run.directory).status == "running"
        assert run.seed == 7
        assert run.name == "demo"
        run.log({"loss": 2.0}, step=1)
        run.summary.update(val_loss=1.5, n_params=10, tokens=100, weights_sha256="ff")
        run.note_data("train", "abc")
    assert run.directory.parent == tmp_path / "runs" / "demo"
    record = directory.read(run.directory)
    assert record.config == CONFIG
    assert record.result["status"] == "done"
    assert record.result["fingerprint"] == directory.fingerprint(CONFIG)
    assert record.result["metrics"] == {"val_loss": 1.5}
    assert (record.result["n_params"], record.result["tokens"], record.result["weights_sha256"]) == (
        10,
        100,
        "ff",
    )
    assert record.result["wall_seconds"] >= 0
    assert record.provenance["seeds"] == {"seed": 7}
    assert record.provenance["data"] == {"train": "abc"}
    assert record.provenance["ended_at"] >= record.provenance["started_at"]
    assert set(record.provenance["energy"]) >= {"joules", "method"}
    assert directory.is_done(run.directory)
    assert Watch.latest.ended == 0
    assert Watch.latest.arguments["group"] == "g"
    assert Watch.latest.arguments["config"] == CONFIG


@pytest.mark.parametrize(
    ("error", "status"),
    [(KeyboardInterrupt(), "interrupted"), (RuntimeError("boom"), "failed"), (SystemExit(3), "failed")],
)
def test_how_it_ended(tmp_path, error, status: str) -> None:
    def task() -> None:
        with session({**CONFIG, "run_dir": str(tmp_path)}, tracker=Watch) as run:
            run.log({"loss": 2.0}, step=1)
            raise error

    with pytest.raises(type(error)):
        task()
    record = directory.read(tmp_path)
    assert record.status == status
    assert not directory.is_done(tmp_path)
    assert Watch.latest.ended == 1
    if status == "failed":
        assert str(error) in record.result["error"]
    directory.RunDirectory.reopen(tmp_path, CONFIG).release()  # the claim is free again


def test_resume_goes_on_in_the_same_directory(tmp_path) -> None:
    def interrupted() -> None:
        with session({**CONFIG, "run_dir": str(tmp_path / "r")}) as run:
            run.log({"loss": 2.0}, step=1)
            run._began -= 100
            run.log({"loss": 1.0}, step=2)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with session({**CONFIG, "resume": "x"}, resume=tmp_path / "r") as run:
        run.rewind(1)
        run.log({"loss": 1.0}, step=2)
    record = directory.read(tmp_path / "r")
    assert [line["step"] for line in record.metrics] == [1, 2]
    assert record.metrics[-1]["seconds"] >= 100
    assert record.status == "done"
    assert len(record.provenance["earlier_sessions"]) == 1
    assert record.provenance["earlier_sessions"][0]["ended_at"]
    with pytest.raises(ConfigError) as caught, session(CONFIG, resume=tmp_path / "absent"):
        pass
    assert caught.value.key == "resume"


def test_a_config_error_while_claiming_touches_nothing(tmp_path) -> None:
    (tmp_path / "x").write_text("mine")
    with pytest.raises(ConfigError) as caught, session({**CONFIG, "run_dir": str(tmp_path)}):
        pytest.fail("the body must not run")
    assert caught.value.key == "run_dir"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_another_rank_writes_nothing(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("llm.runtime.is_main", lambda: False)
    monkeypatch.setattr("llm.runtime.broadcast", lambda value: (str(tmp_path / "r"),))
    with session(CONFIG, tracker=Watch) as run:
        run.log({"loss": 1.0}, step=1)
    assert run.directory == tmp_path / "r"
    assert not run.directory.exists()
    monkeypatch.setattr("llm.runtime.broadcast", lambda value: ("run_dir", "d", "is taken"))
    with pytest.raises(ConfigError, match="run_dir=d: is taken"), session(CONFIG):
        pass


def test_the_record_survives_an_impatient_second_interrupt(tmp_path) -> None:
    class Slow(Watch):
        def finish(self, summary, *, exit_code) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), session({**CONFIG, "run_dir": str(tmp_path)}, tracker=Slow) as run:
        raise KeyboardInterrupt
    assert files.read_json(run.directory / "result.json")["status"] == "interrupted"


def test_the_report_comes_after_the_result_and_before_done(tmp_path) -> None:
    seen = []

    def report(path) -> None:
        seen.append((directory.read(path).status, directory.is_done(path), Watch.latest.ended))

    with session({**CONFIG, "run_dir": str(tmp_path / "r")}, tracker=Watch, report=report):
        pass
    assert seen == [("done", False, 0)]
    assert directory.is_done(tmp_path / "r")


def test_a_failing_report_costs_one_line(tmp_path, capsys) -> None:
    with session({**CONFIG, "run_dir": str(tmp_path)}, report=lambda path: 1 / 0):
        pass
    assert directory.is_done(tmp_path)
    assert "the report could not be written (ZeroDivisionError" in capsys.readouterr().err

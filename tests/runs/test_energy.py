from __future__ import annotations

import time

import pytest

from llm.runs.energy import EnergyMeter


@pytest.fixture
def no_gpu(monkeypatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)


def zone(root, name: str, value: int, largest: int = 1_000_000_000):
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "energy_uj").write_text(str(value))
    (folder / "max_energy_range_uj").write_text(str(largest))
    return folder / "energy_uj"


@pytest.mark.usefixtures("no_gpu")
def test_rapl_packages_are_added_and_wrap(tmp_path) -> None:
    first = zone(tmp_path, "intel-rapl:0", 100_000_000)
    second = zone(tmp_path, "intel-rapl:1", 990_000_000)
    core = zone(tmp_path, "intel-rapl:0:0", 0)
    meter = EnergyMeter(tmp_path, every_seconds=0.02).start()
    first.write_text("105000000")
    core.write_text("4000000")
    second.write_text("10000000")  # around the end: 10 J before it, 10 J after
    time.sleep(0.1)
    first.write_text("107000000")
    energy = meter.stop()
    assert energy["joules"] == pytest.approx(7 + 20)
    assert energy["method"] == "measured: RAPL"


@pytest.mark.usefixtures("no_gpu")
def test_nothing_to_read_has_a_reason(tmp_path) -> None:
    energy = EnergyMeter(tmp_path).start().stop()
    assert energy["joules"] is None
    assert "no RAPL counter" in energy["reason"]
    assert "no nvidia-smi" in energy["reason"]


def test_gpu_power_is_an_estimate(tmp_path, monkeypatch) -> None:
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho 200.0\necho 100.0\n")
    smi.chmod(0o755)
    monkeypatch.setattr("shutil.which", lambda name: str(smi))
    meter = EnergyMeter(tmp_path, every_seconds=0.05)
    began = time.monotonic()
    meter.start()
    time.sleep(0.2)
    energy = meter.stop()
    assert 0.2 * 300 <= energy["joules"] <= (time.monotonic() - began) * 300
    assert energy["method"].startswith("estimated")

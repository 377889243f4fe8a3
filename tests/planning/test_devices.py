"""What machines can do."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from llm.config import CONF, build
from llm.planning import devices
from llm.planning.devices import Device, Machine, ThisCPU


@pytest.mark.parametrize("path", sorted((CONF / "device").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_device_has_its_figures(path: Path) -> None:
    device = build(OmegaConf.load(path))
    assert isinstance(device, Machine)
    for figure in (device.memory_bytes, device.bytes_per_second, device.flops(torch.float32)):
        assert figure > 1e6
    assert device.label
    assert device.source
    if isinstance(device, Device):
        assert device.flops(torch.bfloat16) > device.flops(torch.float32)
        assert 1 < device.flops(torch.bfloat16) / device.bytes_per_second < 1000  # FLOPs a byte


def test_this_cpu_is_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(devices, "POWERCAP", tmp_path)
    cpu = ThisCPU()
    assert cpu.watts is None
    assert cpu.flops(torch.float32) == cpu.flops(torch.float32) < 1e14
    monkeypatch.setattr(devices, "CGROUP", tmp_path / "memory.max")
    (tmp_path / "memory.max").write_text("1000000\n")
    assert ThisCPU().memory_bytes == 1e6
    (tmp_path / "memory.max").write_text("max\n")
    assert ThisCPU().memory_bytes == cpu.memory_bytes


def test_the_power_limit_is_that_of_all_packages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for zone, watts in (("intel-rapl:0", 65), ("intel-rapl:1", 65), ("intel-rapl:0:0", 30)):
        (tmp_path / zone).mkdir()
        (tmp_path / zone / "constraint_0_power_limit_uw").write_text(str(watts * 10**6))
    monkeypatch.setattr(devices, "POWERCAP", tmp_path)
    assert ThisCPU().watts == 130
    assert ThisCPU(watts=45.0).watts == 45

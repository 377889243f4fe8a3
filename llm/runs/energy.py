"""The electricity a run used, from the counters this machine has; honest about which they are."""

from __future__ import annotations

import re
import shutil
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

POWERCAP = Path("/sys/class/powercap")


class EnergyMeter:
    """Adds up energy from `start` to `stop`, reading the counters every `every_seconds` in a thread.

    CPU packages: Intel's and AMD's RAPL counters (measured; they wrap around within the hour on a busy
    server, hence the thread). GPUs: the power nvidia-smi reports, times the time between two readings
    (an estimate).
    """

    def __init__(self, powercap: Path = POWERCAP, every_seconds: float = 15.0) -> None:
        self._every_seconds = every_seconds
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._why: list[str] = []
        self._rapl = self._find_rapl(powercap)
        self._cpu_joules, self._gpu_joules = 0.0, 0.0
        self._smi = shutil.which("nvidia-smi")
        if self._smi is None:
            self._why.append("no nvidia-smi")
        elif not self._gpu_watts():
            self._why.append("nvidia-smi reports no power")
            self._smi = None

    def _find_rapl(self, powercap: Path) -> dict[Path, tuple[int, int]]:
        """Each package's counter: where it is, its last value and its largest, in microjoules."""
        found = {}
        # Sub-zones (intel-rapl:0:1: cores, memory) are part of their package: adding them would count twice.
        zones = [z for z in powercap.glob("intel-rapl:*") if re.fullmatch(r"intel-rapl:\d+", z.name)]
        for zone in zones:
            try:
                now = int((zone / "energy_uj").read_text())
                found[zone / "energy_uj"] = (now, int((zone / "max_energy_range_uj").read_text()))
            except (OSError, ValueError) as error:
                self._why.append(f"{zone}: {error.__class__.__name__}")
        if not zones:
            self._why.append(f"no RAPL counter under {powercap}")
        return found

    def _gpu_watts(self) -> list[float]:
        command = [str(self._smi), "--query-gpu=power.draw", "--format=csv,noheader,nounits"]
        try:
            output = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout
            return [float(line) for line in output.split()]
        except (OSError, ValueError, subprocess.SubprocessError):
            return []

    def start(self) -> EnergyMeter:
        """Begins to count; does nothing where there is nothing to read."""
        self._last = time.monotonic()
        self._watts = sum(self._gpu_watts()) if self._smi else 0.0
        if self._rapl or self._smi:
            self._thread = threading.Thread(target=self._count, name="energy", daemon=True)
            self._thread.start()
        return self

    def _count(self) -> None:
        while not self._stop.wait(self._every_seconds):
            self._read()

    def _read(self) -> None:
        for path, (before, largest) in self._rapl.items():
            try:
                now = int(path.read_text())
            except (OSError, ValueError):
                continue
            self._cpu_joules += ((now - before) if now >= before else (now + largest - before)) / 1e6
            self._rapl[path] = (now, largest)
        if self._smi:
            now_seconds, watts = time.monotonic(), sum(self._gpu_watts())
            self._gpu_joules += (now_seconds - self._last) * (self._watts + watts) / 2  # trapezoid
            self._last, self._watts = now_seconds, watts

    def stop(self) -> dict[str, Any]:
        """`joules` in total (None when nothing could be read, with the `reason`), and by which `method`."""
        self._stop.set()
        if self._thread is None:
            return {"joules": None, "method": None, "reason": "; ".join(self._why)}
        self._thread.join()
        self._read()
        parts = {
            **({"cpu_joules": self._cpu_joules} if self._rapl else {}),
            **({"gpu_joules": self._gpu_joules} if self._smi else {}),
        }
        method = "estimated: nvidia-smi power x time" if self._smi else "measured: RAPL"
        if self._smi and self._rapl:
            method = "CPU measured by RAPL, GPU estimated from nvidia-smi power x time"
        scope = "the whole machine's, other programs included"
        left_out = {"left_out": "; ".join(self._why)} if self._why else {}
        return {"joules": sum(parts.values()), **parts, "method": method, "scope": scope, **left_out}

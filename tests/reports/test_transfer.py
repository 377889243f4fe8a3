from __future__ import annotations

import pytest

from llm.reports import transfer
from llm.reports.sweep import Trial


def trial(kind: str, width: int, rate: float, objective: float | None) -> Trial:
    said = [f"model/parametrization={kind}", f"model.d_model={width}", f"optimizer.lr={rate}"]
    return {
        "overrides": said,
        "objective": objective,
        "status": "done",
        "directory": f"{kind}-{width}-{rate}",
    }


RATES = (0.001, 0.002, 0.004, 0.008)
TRIALS = [
    trial(kind, width, rate, 2.0 + abs(RATES.index(rate) - at) / 10)
    for kind, places in (("standard", {256: 1, 64: 3}), ("mup", {256: 2, 64: 2}))
    for width, at in places.items()
    for rate in reversed(RATES)
]
TRIALS += [trial("mup", 512, 0.001, None)]


def test_the_best_rate_of_each_width() -> None:
    found = transfer.curves(TRIALS)
    assert {kind: list(widths) for kind, widths in found.items()} == {"standard": [64, 256], "mup": [64, 256]}
    assert list(found["mup"][64]) == list(RATES)
    assert transfer.best(found) == {"standard": {64: 0.008, 256: 0.002}, "mup": {64: 0.004, 256: 0.004}}
    assert transfer.best(found, "maximize")["mup"] == {64: 0.001, 256: 0.001}


def test_a_sweep_has_the_plot_beside_its_ranking(tmp_path) -> None:
    written = transfer.write(tmp_path, TRIALS)
    assert (tmp_path / "ranking.csv").is_file()
    assert (tmp_path / "transfer.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    standard = "standard: best learning rate 0.008 at width 64, 0.002 at width 256; that of the narrowest"
    assert f"{standard} costs the widest 0.200" in written.terminal
    assert "0.004 at width 256; that of the narrowest costs the widest 0.000" in written.terminal


@pytest.mark.parametrize(
    "trials", [[], [{"overrides": ["model.d_model=64"], "objective": 1.0, "status": "done"}]]
)
def test_other_sweeps_are_ranked_only(tmp_path, trials: list[Trial]) -> None:
    transfer.write(tmp_path, trials)
    assert (tmp_path / "ranking.md").is_file()
    assert not (tmp_path / "transfer.png").exists()


def test_the_optimum_lies_between_the_rates_that_were_tried() -> None:
    rates = {2.0**n: 1.5 * (n + 7.3) ** 2 for n in (-10, -8, -7, -5)}
    assert transfer.optimum(rates) == pytest.approx(2.0**-7.3)
    assert transfer.optimum({r: -v for r, v in rates.items()}, "maximize") == pytest.approx(2.0**-7.3)
    assert transfer.optimum({0.1: 1.0, 0.2: 2.0, 0.4: 3.0}) == 0.1  # the optimum may lie beyond

from __future__ import annotations

import json

import pytest

from tests.conftest import Main

SMALL = [
    "task=coordinate_check", "tracker=none", "widths=[64,16,32]", "n_steps=2", "n_seeds=1", "seq_len=6",
    "vocab_size=17", "run_dir=out",
]  # fmt: skip


def test_both_parametrizations_a_table_and_a_plot(main: Main) -> None:
    done = main(*SMALL, "model=llama", "model/parametrization=mup", "model.parametrization.base_d_model=32")
    assert done.code == 0, done.err
    out = main.home / "out"
    metrics = json.loads((out / "result.json").read_text())["metrics"]
    slopes = {n: abs(v) for n, v in metrics.items() if n.startswith("mup_slope_")}
    assert len(slopes) == 1 + 2 * 3 + 1
    assert metrics["largest_slope"] == metrics["mup_largest_slope"] == max(slopes.values())
    assert metrics["standard_largest_slope"] > 0.3
    assert f"largest slope {metrics['largest_slope']:.3f} after 2 steps" in done.err
    assert ("mup passes" in done.err) is metrics["is_flat"]
    assert "standard: " in done.err
    table = json.loads((out / "tables" / "coordinates.json").read_text())
    assert table["columns"] == ["parametrization", "width", "seed", "step", "layer", "size"]
    assert len(table["rows"]) == 2 * (4 + 2 + 1) * 3 * 8  # kinds x models x steps x layers
    assert (out / "coordinate_check.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    logged = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in logged] == [0, 1, 2]
    assert logged[-1]["mup_largest_slope"] == metrics["mup_largest_slope"]


def test_the_usual_one_alone_fails_and_says_so(main: Main) -> None:
    done = main(*SMALL, "n_layers=null", "model.n_layers=1", "model/initialisation=scaled")
    assert done.code == 0, done.err
    metrics = json.loads((main.home / "out" / "result.json").read_text())["metrics"]
    assert {n.partition("_slope_")[0] for n in metrics if "_slope_" in n} == {"standard"}
    assert metrics["is_flat"] is False
    assert "standard fails: " in done.err


@pytest.mark.parametrize(
    ("extra", "says"),
    [
        (["widths=[64]"], "error: widths=[64]: a slope needs two widths or more"),
        (["widths=[64,70]"], "error: widths=70: is not divisible by n_heads=4; nearest: 68, 72"),
        (["widths=[64,0]"], "error: widths.1="),
        (["model/parametrization=mup", "model.parametrization.base_d_model=90"],
         "error: model.parametrization.base_d_model=90: is not divisible by n_heads=4; nearest: 88, 92"),
        (["model/parametrization=mup", "model.parametrization.base_width=64"], "did you mean"),
        (["model=t5", "model.head_dim=null", "model.n_heads=4"], "model=EncoderDecoder: reads a source"),
    ],
)  # fmt: skip
def test_mistakes_name_their_key(main: Main, extra: list[str], says: str) -> None:
    done = main(*SMALL, *extra)
    assert done.code == 2, done.err
    assert says in done.err

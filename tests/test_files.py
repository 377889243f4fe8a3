from __future__ import annotations

import json
import math
import struct

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llm import files


@given(st.floats())
def test_every_float_survives(value: float) -> None:
    text = json.dumps(files.plain({"x": value}), allow_nan=False)
    back = files.number(json.loads(text)["x"])
    if math.isnan(value):
        assert isinstance(back, float)
        assert math.isnan(back)
    else:
        assert struct.pack("d", back) == struct.pack("d", value)


def test_scalars_of_other_libraries() -> None:
    assert files.plain(
        {"a": np.float32(0.1), "b": torch.tensor(3), "c": torch.tensor([1.5, float("nan")])}
    ) == {
        "a": float(np.float32(0.1)),
        "b": 3,
        "c": [1.5, "NaN"],
    }


def test_canonical_is_independent_of_order() -> None:
    assert (
        files.canonical({"b": (1, 2.0), "a": {"y": None, "x": True}})
        == '{"a":{"x":true,"y":null},"b":[1,2.0]}'
    )
    assert (
        files.digest({"a": 1, "b": 2}) == files.digest({"b": 2, "a": 1}) != files.digest({"a": 1, "b": 2.5})
    )


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch) -> None:
    path = tmp_path / "result.json"
    files.write_json(path, {"old": 1})
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        files.write_json(path, {"new": 2})
    assert files.read_json(path) == {"old": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["result.json"]

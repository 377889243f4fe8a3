"""Every YAML of conf/model keeps the promises of llm/models/base.py; a new one is found unaided."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from tests.models import composition
from tests.models.composition import load_part, names, presets, small
from tests.models.contract import check_cache, check_causality, check_part, check_shapes_and_gradients

PARTS = [(group, name) for group in composition.PARTS for name in names(group)]


def test_there_are_parts_to_check():
    assert {("attention", "multi_head"), ("feed_forward", "swiglu"), ("position", "none")} <= set(PARTS)


@pytest.mark.parametrize(("group", "name"), PARTS)
def test_part(group: str, name: str):
    check_part(group, load_part(group, name))


@pytest.mark.parametrize("preset", presets())
def test_preset(preset: str):
    check_shapes_and_gradients(small(preset))
    check_causality(small(preset).eval())
    check_cache(small(preset).eval())


@pytest.mark.parametrize("path", sorted(composition.CONF.rglob("*.yaml")), ids=lambda path: path.stem)
def test_first_line_says_what_it_is(path: Path):
    assert path.read_text(encoding="utf-8").startswith("# ")


WINDOW = '''
    import torch
    from llm.models.attention.multi_head import MultiHeadAttention

    class Windowed(MultiHeadAttention):
        """Each token sees itself and the `window - 1` before it."""

        def __init__(self, sizes, *, rotate, window: int):
            super().__init__(sizes, rotate=rotate)
            self.window = window

        def forward(self, x, *, positions, mask, cache=None, context=None):
            past = 0 if cache is None else cache.length
            columns = torch.arange(past + x.shape[1])
            rows = columns[past:, None]
            near = (columns <= rows) & (columns > rows - self.window)
            near = near[None, None] if mask is None else near & mask
            return super().forward(x, positions=positions, mask=near, cache=cache)
'''
BROKEN = WINDOW.replace("(columns <= rows) & ", "")


@pytest.fixture
def variant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Adds an attention variant as a user would: one python file and one YAML file."""
    monkeypatch.syspath_prepend(tmp_path)

    def add(source: str):
        (tmp_path / "windowed.py").write_text(dedent(source))
        (tmp_path / "attention").mkdir()
        (tmp_path / "attention" / "windowed.yaml").write_text(
            "# A sliding window.\n_target_: windowed.Windowed\n_partial_: true\nwindow: 3\n"
        )
        importlib.invalidate_caches()
        assert names("attention", tmp_path) == ["windowed"]
        return load_part("attention", "windowed", tmp_path)

    yield add
    sys.modules.pop("windowed", None)


def test_a_new_attention_is_one_python_file_and_one_yaml(variant):
    check_part("attention", variant(WINDOW))


def test_the_contract_notices_a_part_that_looks_ahead(variant):
    part = variant(BROKEN)
    with pytest.raises(AssertionError):
        check_part("attention", part)

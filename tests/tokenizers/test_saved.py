"""A saved tokenizer in place of a trained one."""

from __future__ import annotations

from pathlib import Path

import pytest

from llm.tokenizers import byte, saved
from llm.types import ConfigError


def test_it_is_the_saved_one(tmp_path: Path) -> None:
    byte.train([]).save(tmp_path)
    assert saved.reuse(["not read"], directory=str(tmp_path)).encode("A") == [65]


def test_a_wrong_directory_is_named_by_its_key(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        saved.reuse([], directory=str(tmp_path))
    assert (caught.value.key, caught.value.value) == ("directory", str(tmp_path))

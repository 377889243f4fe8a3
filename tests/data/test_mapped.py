"""Packed tokens opened: shards read as one row of ids, and damage that is noticed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm.data.mapped import ShardedTokens, document_bounds, open_packed
from llm.types import ConfigError
from tests.data.test_shards import packed, source


@given(sizes=st.lists(st.integers(0, 9), min_size=1, max_size=6), data=st.data())
def test_any_slice_and_any_places(sizes: list[int], data: st.DataObject) -> None:
    ids = np.arange(sum(sizes), dtype=np.uint16)
    tokens = ShardedTokens(np.split(ids, np.cumsum(sizes)[:-1]))
    edge = st.none() | st.integers(-len(ids) - 2, len(ids) + 2)
    place = slice(data.draw(edge), data.draw(edge))
    assert tokens[place].tolist() == ids[place].tolist()
    assert len(tokens) == len(ids)
    if len(ids):
        places = np.array(data.draw(st.lists(st.integers(0, len(ids) - 1), max_size=9)), dtype=np.int64)
        assert tokens[places].tolist() == ids[places].tolist()
        assert tokens[places.reshape(1, -1)].shape == (1, len(places))


@pytest.mark.parametrize(
    ("change", "mend"),
    [
        ({"n_tokens": 5}, "do not add up"),
        ({"sha256": "0"}, "do not add up"),
        ({"shards": [{"file": "x"}]}, "not the sidecar"),
        ({"shards": 3}, "not the sidecar"),
    ],
)
def test_a_damaged_list_is_a_config_error(tmp_path: Path, change: dict[str, Any], mend: str) -> None:
    packed(tmp_path, source(tmp_path))
    file = tmp_path / "train.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(ConfigError, match=mend):
        open_packed(tmp_path / "train")


def test_a_damaged_shard_is_a_config_error(tmp_path: Path) -> None:
    packed(tmp_path, source(tmp_path))
    file = tmp_path / "train" / "00001.bin"
    raw = file.read_bytes()
    file.write_bytes(b"\1" + raw[1:])
    with pytest.raises(ConfigError, match="damaged: its sha256"):
        open_packed(tmp_path / "train")
    file.write_bytes(raw[:-2])
    with pytest.raises(ConfigError, match="bytes, but its"):
        open_packed(tmp_path / "train", verify=False)
    file.unlink()
    with pytest.raises(ConfigError, match="cannot be read"):
        open_packed(tmp_path / "train", verify=False)


def test_an_index_that_is_not_of_these_documents(tmp_path: Path) -> None:
    packed(tmp_path, source(tmp_path))
    file = tmp_path / "train.json"
    about = json.loads(file.read_text())
    about["n_documents"] += 1
    about["shards"][0]["n_documents"] += 1
    file.write_text(json.dumps(about))
    with pytest.raises(ConfigError, match=r"its \.json says 59 documents"):
        document_bounds(tmp_path / "train")
    (tmp_path / "train" / "00000.idx").write_bytes(b"")
    with pytest.raises(ConfigError, match="not the index"):
        document_bounds(tmp_path / "train")
    (tmp_path / "train" / "00000.idx").unlink()
    assert document_bounds(tmp_path / "train") is None

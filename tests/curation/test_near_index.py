from __future__ import annotations

import json

import polars as pl
import pytest

from llm.curation import near_index
from llm.curation.base import judge
from llm.curation.near_dedup import NearDedup
from llm.types import ConfigError
from tests.curation.test_steps import PROSE, corpus


def test_saved_documents_are_those_that_stay(tmp_path):
    index = tmp_path / "folder" / "index"
    judge(NearDedup(save_index=str(index)), corpus([PROSE, PROSE + "!", "", "other words"]))
    (part,) = near_index.parts(str(index), NearDedup().settings)
    assert pl.read_parquet(part.documents).rows() == [("d1", PROSE + "!"), ("d3", "other words")]
    notes = pl.read_parquet(part.notes)
    assert notes["row"].to_list() == [0, 1]
    assert "priority" not in notes.columns
    assert near_index.check(str(index), NearDedup().settings)["n_documents"] == 2
    assert sorted(one.name for one in index.parent.iterdir()) == ["index"], "nothing else is left behind"


def test_the_users_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    judge(NearDedup(save_index="~/index"), corpus([PROSE]))
    assert [one.name for one in tmp_path.iterdir()] == ["home"]
    near_index.check(str(tmp_path / "home" / "index"), NearDedup().settings)
    assert judge(NearDedup(index="~/index"), corpus([PROSE]))["reason"].to_list() == [
        "near_duplicate_of_index"
    ]
    with pytest.raises(ConfigError, match="is read as `index`"):
        NearDedup(index="~/index", save_index=str(tmp_path / "home" / "index"))


def test_an_index_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    index = tmp_path / "index"
    step = NearDedup(save_index=str(index))
    judge(step, corpus(["first words"]))
    before = (index / "index.json").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(near_index, "write_json", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
        with pytest.raises(OSError, match="disk full"):
            judge(step, corpus(["second words"]))
    assert (index / "index.json").read_bytes() == before
    assert sorted(one.name for one in tmp_path.iterdir()) == ["index"]
    judge(step, corpus(["second words"]))
    assert (index / "index.json").read_bytes() != before
    assert pl.read_parquet(index / "00000.documents.parquet")["text"].to_list() == ["second words"]
    one = (index / "index.json").read_bytes()
    judge(step, corpus(["second words"]))
    assert (index / "index.json").read_bytes() == one, "the same documents give the same index"


@pytest.mark.parametrize(
    "change", [{"length": 3}, {"n_bands": 8}, {"n_rows": 2}, {"seed": 1}, {"unit": "character"}]
)
def test_other_settings_are_refused(tmp_path, change):
    index = str(tmp_path / "index")
    judge(NearDedup(save_index=index), corpus([PROSE]))
    for key in ("index", "save_index"):
        step = NearDedup(**change, **{key: index})
        (name,) = change
        for act in (
            lambda step=step: step.prepare(lambda _: None),
            lambda step=step: judge(step, corpus([PROSE])),
        ):
            with pytest.raises(ConfigError, match=f"was made with {name}=") as caught:
                act()
            assert caught.value.key == key
    NearDedup(0.5, keep="first", index=index).prepare(lambda _: None)


def test_what_is_no_index_is_refused(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep me")
    for path in ("nowhere", "mine"):
        with pytest.raises(ConfigError, match="no index"):
            NearDedup(index=str(tmp_path / path)).prepare(lambda _: None)
    with pytest.raises(ConfigError, match="no index") as caught:
        NearDedup(save_index=str(tmp_path / "mine")).prepare(lambda _: None)
    assert caught.value.key == "save_index"
    assert (tmp_path / "mine" / "notes.txt").exists()
    index = tmp_path / "index"
    judge(NearDedup(save_index=str(index)), corpus([PROSE]))
    told = json.loads((index / "index.json").read_text())
    part = index / "00000.notes.parquet"
    part.write_bytes(part.read_bytes()[:-1])
    with pytest.raises(ConfigError, match="damaged"):
        NearDedup(index=str(index)).prepare(lambda _: None)
    (index / "index.json").write_text(json.dumps({**told, "format": 0, "files": {}}))
    with pytest.raises(ConfigError, match="version"):
        NearDedup(index=str(index)).prepare(lambda _: None)

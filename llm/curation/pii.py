"""Replaces personal data and secrets, or removes the documents that hold them."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import polars as pl
from pydantic import Field

from llm.curation.base import with_attributes
from llm.curation.pii_kinds import FOREIGN, KINDS, Found, apart, find
from llm.types import ConfigError

PiiKind = Literal["email", "phone", "ip", "credit_card", "iban", "us_ssn", "secret"]

_VERSION = 2  # of what `tag` measures

_CUT = r"(?:\S*\p{Nd}\S*\s+)*\S*$"  # at an excerpt's end
_CUT_KEY = r"(?s)-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY.*"


class Pii:
    """Finds e-mail addresses, telephone numbers, public IP addresses, card and account numbers, and secrets.

    Patterns with checks: checksums, ranges never given out, the words before a version number. Dolma
    (Soldaini et al. 2024) redacts the first three, FineWeb (Penedo et al. 2024) mail and network addresses.
    Street addresses are not looked for; names only by `presidio`. Adds the column `n_pii`, their number.

    Args:
        kinds: What is looked for. `phone`: international form, or that of North America. `ip`: public ones.
            `credit_card`: Luhn's checksum and a network's prefix. `iban`: length and checksum. `us_ssn`: with
            hyphens or after its name. `secret`: private keys, JSON web tokens, keys of AWS, GitHub, GitLab,
            Slack, Google, Stripe, OpenAI, Hugging Face.
        mode: `redact` replaces, `remove` leaves the text and removes the document, `tag` only counts.
        max_found: Documents with more are removed; null: none in mode `redact`, any at all in mode `remove`.
            Dolma removes documents with more than 5: a list of addresses is no text to learn from.
        replacement: `placeholder` writes `<EMAIL>`; `fake` what looks right and cannot be anybody's (reserved
            domains, networks and codes), the same for the same value and `salt`. Secrets are `<SECRET>`.
        salt: Keeps fakes from being matched with values by trying them out. Keep it to yourself.
        presidio: Names and more by the package presidio-analyzer, with `entities` ([PERSON]), `model` (an
            installed spaCy model or its folder, en_core_web_lg), `language` (en) and `min_score` (0.5). Null:
            not used.
    """

    def __init__(
        self,
        kinds: Sequence[PiiKind] = ("email", "phone", "ip", "credit_card", "iban", "us_ssn", "secret"),
        mode: Literal["redact", "remove", "tag"] = "redact",
        max_found: Annotated[int, Field(ge=0)] | None = None,
        replacement: Literal["placeholder", "fake"] = "placeholder",
        salt: str = "",
        presidio: Mapping[str, Any] | None = None,
    ) -> None:
        self.check_arguments(kinds, presidio)
        self.kinds = tuple(name for name in KINDS if name in kinds)  # the surer first
        self.mode, self.replacement, self.salt = mode, replacement, salt
        self.max_found = 0 if mode == "remove" and max_found is None else max_found
        self.presidio = _presidio_settings(presidio)
        self._analyse: Callable[[str], list[Found]] | None = None

    @staticmethod
    def check_arguments(kinds: Sequence[PiiKind], presidio: Mapping[str, Any] | None) -> None:
        """Something is looked for, and presidio knows its settings.

        Raises:
            ConfigError: nothing is, or it does not.
        """
        for name in presidio or {}:
            if name not in _PRESIDIO:
                raise ConfigError(
                    f"presidio.{name}", (presidio or {})[name], f"there are {', '.join(_PRESIDIO)}"
                )
        if not kinds and presidio is None:
            raise ConfigError("kinds", "[]", "nothing is looked for; leave the step out")

    def prepare(self, say: Callable[[str], object]) -> None:
        """Loads presidio once, if it is used, so that its absence shows before the corpus is read."""
        if self.presidio is not None:
            self._analyse = _analyser(self.presidio)
            say(f"pii: presidio looks for {', '.join(self.presidio['entities'])}")

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_analyse": None}

    @property
    def attributes(self) -> Mapping[str, Any]:
        """`n_pii`, and the places (JSON of begin, end and kind; null: none)."""
        return {"n_pii": pl.Int64(), "_pii": pl.String()}

    def tag(self, texts: pl.Series) -> pl.DataFrame:
        """What is found in each text."""
        foreign = texts.str.contains(FOREIGN)
        likely: dict[int, list[str]] = {}
        for kind in self.kinds:
            # most documents hold nothing, which polars sees at hundreds of megabytes a second
            for row in (texts.str.contains(KINDS[kind].hint) | foreign).arg_true():
                likely.setdefault(row, []).append(kind)
        places: list[list[Found]] = [[] for _ in range(len(texts))]
        for row in likely if self.presidio is None else range(len(texts)):
            places[row] = self._find(texts[row], likely.get(row, []))
        return pl.DataFrame(
            {
                "n_pii": pl.Series([len(found) for found in places], dtype=pl.Int64),
                "_pii": pl.Series(
                    [json.dumps(found) if found else None for found in places], dtype=pl.String
                ),
            }
        )

    def tag_key(self) -> object:
        """The kinds, and presidio's settings."""
        return [_VERSION, list(self.kinds), self.presidio]

    def annotate(self, documents: pl.LazyFrame) -> pl.LazyFrame:
        """`score` is the number found; `reason` the kinds: ``redacted_email+phone``, ``pii_email``."""
        frame = with_attributes(self, documents).collect()
        texts, keep, reasons = [], [], []
        for text, places in frame.select("text", "_pii").iter_rows():
            found = [Found(*place) for place in json.loads(places)] if places else []
            kinds = "+".join(sorted({one.kind for one in found}))
            removed = self.max_found is not None and len(found) > self.max_found
            redacted = bool(found) and not removed and self.mode == "redact"
            texts.append(self._redact(text, found) if redacted else text)
            keep.append(not removed)
            reasons.append(f"pii_{kinds}" if removed else f"redacted_{kinds}" if redacted else None)
        return (
            frame.lazy()
            .with_columns(
                pl.Series("text", texts, pl.String),
                pl.Series("keep", keep, pl.Boolean),
                pl.Series("reason", reasons, pl.String),
                pl.when(pl.col("n_pii") > 0).then(pl.col("n_pii").cast(pl.Float64)).alias("score"),
                pl.lit(None, pl.String).alias("match"),
            )
            .drop("_pii")
        )

    def mask(self, texts: pl.Series) -> pl.Series:
        """Excerpts for the ledger without what is looked for.

        What the end of an excerpt may have cut in two, so that no pattern knows it, goes as well: the last
        word, numbers ahead of it, and a private key from its first line on.
        """
        whole = texts.str.replace(_CUT, "")
        tagged = self.tag(whole)["_pii"]
        found = [[Found(*place) for place in json.loads(places)] if places else [] for places in tagged]
        masked = [self._redact(text, one) for text, one in zip(whole, found, strict=True)]
        excerpts = pl.Series(texts.name, masked, pl.String)
        return excerpts.str.replace(_CUT_KEY, "<SECRET>") if "secret" in self.kinds else excerpts

    def _find(self, text: str, kinds: Sequence[str]) -> list[Found]:
        found = find(text, kinds)
        if self.presidio is not None:
            self._analyse = self._analyse or _analyser(self.presidio)
            found = apart(found + self._analyse(text), tuple(KINDS))
        return found

    def _redact(self, text: str, found: Sequence[Found]) -> str:
        pieces, end = [], 0
        for one in found:
            pieces += [text[end : one.begin], self._instead(text[one.begin : one.end], one.kind)]
            end = one.end
        return "".join([*pieces, text[end:]])

    def _instead(self, value: str, kind: str) -> str:
        if self.replacement == "placeholder" or kind not in _FAKES:
            return f"<{kind.upper()}>"
        digest = hashlib.blake2b(f"{kind}\x1f{value}".encode(), key=self.salt.encode()[:64], digest_size=8)
        return _FAKES[kind](int.from_bytes(digest.digest(), "big"))


# What nobody has: `find` takes none of them for the real thing, so redacting twice changes nothing.
_FAKES: dict[str, Callable[[int], str]] = {
    "email": lambda n: f"user{n % 10**8:08}@example.invalid",  # RFC 2606
    "phone": lambda n: f"+999 {n % 10**4:04} {n // 10**4 % 10**4:04}",  # no such calling code
    "ip": lambda n: f"192.0.2.{n % 256}",  # RFC 5737
    "credit_card": lambda n: f"9999-{n % 10**4:04}-{n // 10**4 % 10**4:04}-{n // 10**8 % 10**4:04}",
    "iban": lambda n: f"XX00{n % 10**16:016}",
    "us_ssn": lambda n: f"000-{n % 100:02}-{n // 100 % 10**4:04}",
}

_PRESIDIO: dict[str, Any] = {
    "entities": ["PERSON"],
    "model": "en_core_web_lg",
    "language": "en",
    "min_score": 0.5,
}


def _presidio_settings(given: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if given is None:
        return None
    settings = {**_PRESIDIO, **given}
    return {**settings, "entities": [str(one) for one in settings["entities"]]}


def _analyser(settings: Mapping[str, Any]) -> Callable[[str], list[Found]]:
    """Microsoft's presidio with a spaCy model that is already here.

    Raises:
        ConfigError: the package or the model is not installed. Key `presidio`, `presidio.model`.
    """
    try:
        from presidio_analyzer import AnalyzerEngine
        from presidio_analyzer.nlp_engine import NlpEngineProvider
    except ImportError:
        mend = "needs the package presidio-analyzer: pip install -e '.[pii]'"
        raise ConfigError("presidio", settings["model"], mend) from None
    model, language = str(settings["model"]), str(settings["language"])
    # presidio would try to download it, in every worker
    installed = model.isidentifier() and importlib.util.find_spec(model) is not None
    if not installed and not Path(model).is_dir():
        raise ConfigError("presidio.model", model, f"not installed: python -m spacy download {model}")
    configuration = {"nlp_engine_name": "spacy", "models": [{"lang_code": language, "model_name": model}]}
    engine = AnalyzerEngine(
        nlp_engine=NlpEngineProvider(nlp_configuration=configuration).create_engine(),
        supported_languages=[language],
    )

    def analyse(text: str) -> list[Found]:
        results = engine.analyze(
            text, language=language, entities=settings["entities"], score_threshold=settings["min_score"]
        )
        return [Found(one.start, one.end, one.entity_type.lower()) for one in results]

    return analyse

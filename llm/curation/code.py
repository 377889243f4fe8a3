"""Reader of source-code trees."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import polars as pl

from llm.curation import licences
from llm.curation.characters import Decoder, is_binary
from llm.curation.documents import Document
from llm.curation.files import Bytes, FileSource, Piece, find, fingerprint
from llm.curation.text import gather
from llm.files import digest
from llm.types import ConfigError

LANGUAGES: Mapping[str, tuple[str, ...]] = {
    "assembly": (".asm", ".s"),
    "c": (".c", ".h"),
    "clojure": (".clj", ".cljs"),
    "cpp": (".cc", ".cpp", ".cxx", ".hh", ".hpp", ".hxx"),
    "csharp": (".cs",),
    "css": (".css", ".scss", ".less"),
    "cuda": (".cu", ".cuh"),
    "dart": (".dart",),
    "elixir": (".ex", ".exs"),
    "erlang": (".erl", ".hrl"),
    "fortran": (".f", ".f90", ".f95", ".for"),
    "fsharp": (".fs", ".fsx"),
    "go": (".go",),
    "haskell": (".hs",),
    "html": (".html", ".htm"),
    "java": (".java",),
    "javascript": (".js", ".jsx", ".mjs", ".cjs"),
    "julia": (".jl",),
    "kotlin": (".kt", ".kts"),
    "lisp": (".lisp", ".el", ".scm"),
    "lua": (".lua",),
    "markdown": (".md", ".rst"),
    "ocaml": (".ml", ".mli"),
    "perl": (".pl", ".pm"),
    "php": (".php",),
    "powershell": (".ps1",),
    "python": (".py", ".pyi"),
    "r": (".r",),
    "ruby": (".rb",),
    "rust": (".rs",),
    "scala": (".scala",),
    "shell": (".sh", ".bash", ".zsh"),
    "sql": (".sql",),
    "swift": (".swift",),
    "typescript": (".ts", ".tsx"),
    "verilog": (".v", ".sv"),
    "yaml": (".yaml", ".yml"),
    "zig": (".zig",),
}
"""Languages by the ends of their files' names."""

ENDS = {end: language for language, ends in LANGUAGES.items() for end in ends}

DEFAULT_LANGUAGES = (
    *("c", "cpp", "cuda", "csharp", "go", "haskell", "java", "javascript", "julia", "kotlin", "lua", "perl"),
    *("php", "python", "r", "ruby", "rust", "scala", "shell", "sql", "swift", "typescript"),
)

VENDORED = frozenset({
    *("node_modules", "bower_components", "vendor", "third_party", "thirdparty", "3rdparty", "extern"),
    *("site-packages", "dist-packages", "venv", ".venv", "dist", "build", "target", "__pycache__"),
})  # fmt: skip

GENERATED = re.compile(
    r"@generated|do not (edit|modify)|(auto-?|automatically )generated|generated (by|from|automatically)|"
    r"this (file|code) (is|was) (auto-?|automatically )?generated",
    re.IGNORECASE,
)


class CodeFiles(FileSource):
    """Source files of chosen languages below a folder, one document each, with their licences.

    Set aside, each with its reason: copies of other people's code (`vendored`, by the names of folders),
    files that a tool has written (`minified`, `generated`) and those that are no text (`not_text`). Chen et
    al. 2021 (Codex, section 3.1) leave out files whose lines are longer than 100 characters on average or
    than 1,000 at most; these are `minified` here. A licence is that of the file's SPDX header, else that of
    the nearest LICENSE or COPYING above it, else `licence`. Folders whose names begin with a dot are not
    looked at.

    Args:
        path: The tree's folder (or one file, or a pattern).
        domain: Domain of the documents.
        languages: Which to read, see `LANGUAGES`; `[]` for all.
        domain_per_language: Whether the language is part of the domain: `code-python`.
        exclude: Patterns of paths to leave out without a word, as in a .gitignore: `*.pb.go`, `tests/`,
            `/docs`. A slash at the front or within ties a pattern to the top.
        keep_vendored: Whether copies of other people's code are documents.
        max_mean_line: 100 characters.
        max_line: 1,000 characters.
        licence: Where none is found.
        max_document_bytes: Larger files are set aside.
    """

    def __init__(
        self,
        path: str,
        domain: str = "code",
        *,
        languages: Sequence[str] = DEFAULT_LANGUAGES,
        domain_per_language: bool = False,
        exclude: Sequence[str] = (),
        keep_vendored: bool = False,
        max_mean_line: Bytes = 100,
        max_line: Bytes = 1000,
        licence: str | None = None,
        max_document_bytes: Bytes = 1_000_000,
    ) -> None:
        self.check_arguments(languages)
        self.languages, self.exclude = list(languages) or sorted(LANGUAGES), list(exclude)
        self.domain_per_language, self.keep_vendored = domain_per_language, keep_vendored
        self.max_mean_line, self.max_line = max_mean_line, max_line
        super().__init__(path, domain=domain, licence=licence, max_document_bytes=max_document_bytes)

    @staticmethod
    def check_arguments(languages: Sequence[str] = DEFAULT_LANGUAGES) -> None:
        """Every language is known.

        Raises:
            ConfigError: one is not. Key `languages`.
        """
        for one in languages:
            if one not in LANGUAGES:
                raise ConfigError("languages", one, f"is none of {', '.join(LANGUAGES)}")

    @property
    def suffixes(self) -> tuple[str, ...]:  # type: ignore[override]
        """Ends of names, by `languages`."""
        return tuple(end for language in self.languages for end in LANGUAGES[language])

    def _find(self) -> list[Path]:
        top = Path(self.path).expanduser()
        if not top.is_dir():
            given = find(self.path, self.suffixes)
            self._top = Path(os.path.commonpath([one.parent for one in given]))
            return given
        self._top = top
        excluded = Excluded(self.exclude)
        # a folder is one that cannot be looked into
        found = [
            path
            for path in _walk(top, top, excluded)
            if path.name.lower().endswith(self.suffixes) or path.is_dir()
        ]
        if not found:
            mend = f"the folder holds no file of {', '.join(self.languages)}"
            raise ConfigError("path", self.path, mend)
        return found

    def fingerprint(self) -> str:
        """As that of `FileSource`, with the licences' files."""
        folders = {folder for path in self._paths for folder in path.relative_to(self._top).parents}
        told = [path for folder in sorted(folders) for path in licences.files_of(self._top / folder)]
        return digest([super().fingerprint(), fingerprint(told)])

    def contents(self, piece: Piece) -> Iterator[Document | pl.DataFrame]:
        """The file, or why it is no document."""
        recoded, source = self.stream(piece)
        raw, n_bytes, failure = gather(source, self.max_document_bytes)
        if failure is not None:
            raise failure
        if not raw or raw.isspace():
            return
        made = self._judged(piece, raw, n_bytes, "reencoded" if recoded else None)
        folder = piece.path.parent
        licence = licences.of_header(made.text) or licences.of_folder(folder, self._top) or self.licence
        language = ENDS.get(piece.path.suffix.lower())
        domain = f"{self.domain}-{language}" if self.domain_per_language and language else self.domain
        yield made._replace(licence=licence, domain=domain)

    def _judged(self, piece: Piece, raw: bytes, n_bytes: int, reason: str | None) -> Document:
        if not self.keep_vendored and VENDORED.intersection(piece.path.relative_to(self._top).parts[:-1]):
            return self.reject(piece, "vendored", raw)
        if n_bytes > self.max_document_bytes:
            return self.reject(piece, "too_large", raw, score=n_bytes)
        if is_binary(raw):
            return self.reject(piece, "not_text", raw)
        text, why = Decoder().decode(raw)
        lines = text.splitlines() or [text]
        longest, mean = max(map(len, lines)), len(text) / len(lines)
        if ".min." in piece.path.name or longest > self.max_line or mean > self.max_mean_line:
            return self.reject(piece, "minified", text, score=longest)
        if GENERATED.search("\n".join(lines[:10])):
            return self.reject(piece, "generated", text)
        return self.document(piece, None, text, why or reason)


class Excluded:
    """Patterns as in a .gitignore: the last that fits a path decides, and ``!`` takes back."""

    def __init__(self, patterns: Sequence[str]) -> None:
        self._rules = [_rule(pattern) for pattern in patterns if pattern.strip() and pattern[0] != "#"]

    def __call__(self, path: str, *, folder: bool) -> bool:
        """Whether to leave out a path below the top, given with slashes."""
        found = False
        for keeps, folders_only, pattern in self._rules:
            if (folder or not folders_only) and pattern.fullmatch(path):
                found = not keeps
        return found


def _rule(pattern: str) -> tuple[bool, bool, re.Pattern[str]]:
    keeps, pattern = pattern.startswith("!"), pattern.strip().removeprefix("!")
    folders_only, pattern = pattern.endswith("/"), pattern.rstrip("/")
    tied = "/" in pattern
    body = WILDCARD.sub(_wildcard, pattern.lstrip("/"))
    return keeps, folders_only, re.compile(body if tied else f"(?:.*/)?{body}")


WILDCARD = re.compile(
    r"(?P<any>(?:(?<=/)|^)\*\*/)|(?P<below>/\*\*$)|\*+|\?|\[(?P<set>!?[^]/]+)\]|.", re.DOTALL
)


def _wildcard(found: re.Match[str]) -> str:
    """One sign of a pattern as a regular expression: a star does not cross slashes, two of them do."""
    if found["any"]:
        return "(?:.*/)?"
    if found["below"]:
        return "/.+"
    if found["set"]:
        inner = found["set"].replace("\\", "\\\\").replace("[", "\\[")
        return f"[^/{inner[1:]}]" if inner[0] in "!^" else f"[{inner}]"
    return {"*": "[^/]*", "?": "[^/]"}.get(found[0][0], re.escape(found[0]))


def _walk(folder: Path, top: Path, excluded: Excluded) -> Iterator[Path]:
    """Files in order, without links, hidden folders and what is excluded; folders that may not be read."""
    try:
        paths = sorted(folder.iterdir())
    except OSError:
        yield folder
        return
    for path in paths:
        if path.is_symlink():
            continue
        is_folder = path.is_dir()
        if excluded(path.relative_to(top).as_posix(), folder=is_folder):
            continue
        if not is_folder:
            yield path
        elif not path.name.startswith("."):
            yield from _walk(path, top, excluded)

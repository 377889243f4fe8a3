"""Documented objects of a package, read without importing it: names, kinds, texts."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

import pytest

from llm.curation import markup
from llm.curation.embedded import EmbeddedCorpus
from llm.curation.objects import read_objects
from llm.curation.packages import package_files
from llm.types import ConfigError

FILES = {
    "__init__.py": """
        from ._core.maths import *
        from .shapes import Circle
        from .shapes import Circle as Round
        raise RuntimeError("imported")
    """,
    "_core/__init__.py": "",
    "shapes.py": '''
        """Shapes."""
        class Circle:
            """A round thing of a given :class:`~pkg.Radius`.

            Args:
                radius (float): how far the edge is away
            """
            def __init__(self, radius, *, unit="m"): ...
            @property
            def area(self):
                """Surface that the circle covers."""
            @area.setter
            def area(self, value):
                """Never shown."""
            @staticmethod
            def unit(scale=1.0):
                """Circle of radius ``scale`` around the origin."""
            def _hidden(self):
                """Never shown."""
        def _private():
            """Never shown."""
        if True:
            def grow(shape, by=2, *rest, **more):
                """Return a larger copy of `shape`. It is new.

                Parameters
                ----------
                shape : Circle
                    The shape that is copied.

                Returns
                -------
                Circle
                    A circle of the larger size.
                """
    ''',
    "secret/_inner.py": 'def f():\n    """Not reachable from outside."""\n',
    "attached.py": """
        add_docstr(pkg.fast, r'''
        fast(x, *, out=None) -> Tensor

        Computes :math:`x` at speed.
        ''')
    """,
    "broken.py": "def (:\n",
    "tests/test_x.py": 'def g():\n    """A test."""\n',
}
MATHS = '''
    __all__ = ["add", "sub"]
    def add(a, b):
        """Sum of both numbers."""
    def sub(a, b):
        """Difference of both."""
    def other():
        """Not exported from here."""
'''


@pytest.fixture
def package(tmp_path: Path, monkeypatch) -> str:
    for name, text in {**FILES, "_core/maths.py": MATHS}.items():
        path = tmp_path / "pkg" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text), encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    # folders with an underscore are read only where a package keeps its public functions there
    monkeypatch.setattr("llm.curation.packages.PRIVATE_FOLDERS_READ", frozenset({"pkg/_core"}))
    return "pkg"


def test_public_names_kinds_and_signatures(package: str):
    found = {one.name: (one.kind, one.signature) for one in read_objects(package_files(package))}
    assert found == {
        "pkg.Circle": ("class", "(radius, *, unit='m')"),
        "pkg.Circle.area": ("property", ""),
        "pkg.Circle.unit": ("method", "(scale=1.0)"),
        "pkg.add": ("function", "(a, b)"),
        "pkg.sub": ("function", "(a, b)"),
        "pkg.fast": ("function", "(x, *, out=None) -> Tensor"),
        "pkg.shapes.grow": ("function", "(shape, by=2, *rest, **more)"),
    }
    assert package not in sys.modules


def test_documentation_is_taken_apart(package: str):
    found = {one.name: one for one in read_objects(package_files(package))}
    assert found["pkg.Circle"].summary == "A round thing of a given `pkg.Radius`."
    assert found["pkg.Circle"].parameters == (("radius", "how far the edge is away"),)
    assert found["pkg.fast"].summary == "Computes `x` at speed."
    grow = found["pkg.shapes.grow"]
    assert grow.summary == "Return a larger copy of `shape`. It is new."
    assert grow.parameters == (("shape", "The shape that is copied."),)
    assert grow.returns == "A circle of the larger size."
    assert (grow.parent, grow.leaf, grow.group, grow.package) == ("pkg.shapes", "grow", "pkg.shapes", "pkg")


def test_documents_groups_and_fingerprint(package: str, tmp_path: Path):
    corpus = EmbeddedCorpus([package], max_source_bytes=1_000)
    frame = corpus.documents().collect()
    assert frame["id"].is_unique().all()
    assert set(frame["domain"]) == {"docs", "code"}
    assert (
        frame.filter(frame["id"] == "docs:pkg.add")["text"].item() == "pkg.add(a, b)\n\nSum of both numbers."
    )
    code = frame.filter(frame["domain"] == "code")
    assert 0 < code["text"].str.len_bytes().sum() <= 1_000
    before = corpus.fingerprint()
    assert before == EmbeddedCorpus([package], max_source_bytes=1_000).fingerprint()
    assert before != EmbeddedCorpus([package], max_source_bytes=2_000).fingerprint()
    (tmp_path / "pkg" / "shapes.py").write_text("x = 1\n")
    assert before != EmbeddedCorpus([package], max_source_bytes=1_000).fingerprint()


def test_a_package_that_is_not_there():
    with pytest.raises(ConfigError, match="not an installed package") as caught:
        EmbeddedCorpus(["no_such_package"]).fingerprint()
    assert caught.value.key == "packages"


@pytest.mark.parametrize(
    ("doc", "expected"),
    [
        ("Return x. Then more.\n\nAnother.", "Return x. Then more."),
        ("Split e.g. at commas. Second one.", "Split e.g. at commas. Second one."),
        ("One. Two. Three.", "One. Two."),
        (".. deprecated:: 1.0\n    Use y.\n\nDo the work.", "Do the work."),
        ("Args:\n    x: something", ""),
        (">>> f()\n1", ""),
        ("Title\n=====\n\nText.", ""),
        ("Start it.\n:param x: what", "Start it."),
        ("Use :func:`~a.b.c` and ``d`` or `the page <https://x.y>`_.", "Use `a.b.c` and `d` or the page."),
        ("word " * 80, ""),
    ],
)
def test_summary(doc: str, expected: str):
    assert markup.summary(markup.plain(doc), 240) == expected


def test_split_signature_handles_both_conventions():
    assert markup.split_signature("abs(x, *, out=None) -> Tensor\n\nText.", "abs") == (
        "(x, *, out=None) -> Tensor",
        "Text.",
    )
    numpy = "nd(shape)\n--\n\nnd(shape, dtype=float)\n\nAn array."
    assert markup.split_signature(numpy, "nd") == ("(shape)", "An array.")
    assert markup.split_signature("abs(x) is good.", "abs") == ("", "abs(x) is good.")

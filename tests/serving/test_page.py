"""The chat page as a file: nothing from outside, nothing that renders text as HTML."""

from __future__ import annotations

import re

import pytest

pytest.importorskip("starlette")

from llm.serving.page import Page


def test_the_policy_allows_the_pages_own_script_and_nothing_else() -> None:
    policy = dict(part.split(" ", 1) for part in Page().policy.split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["connect-src"] == "'self'"
    assert "unsafe" not in Page().policy
    assert policy["script-src"].count("sha256-") == 2
    assert policy["require-trusted-types-for"] == "'script'"


def test_no_markup_is_made_from_text() -> None:
    html = re.sub(r"//[^\n]*", "", Page().html)
    for sink in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function("):
        assert sink not in html
    assert not re.search(r"\son\w+\s*=", html), "an inline event handler"
    assert not re.search(r"<[^>]+\sstyle=", html), "an inline style"


def test_no_request_leaves_this_machine() -> None:
    html = Page().html.replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"(?:https?:)?//[\w-]+\.\w", html)
    assert not re.search(r"<(?:script|link|img|iframe)[^>]+(?:src|href)=(?!\"data:)", html)

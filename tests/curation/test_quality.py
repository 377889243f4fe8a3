from __future__ import annotations

import pytest

from llm.curation.quality import GopherQuality
from tests.curation.judging import STOPS, measures, reasons

BASE = STOPS * 25  # fifty words, three characters each

AT_THE_BOUND = {
    "too_few_words": (BASE, BASE.removesuffix("and ")),
    "too_many_words": (STOPS * 50_000, STOPS * 50_000 + "the"),
    "words_too_short": (BASE, BASE + "of"),
    "words_too_long": (f"the {'x' * 17} and {'x' * 17} " * 13, f"the {'x' * 17} and {'x' * 18} " * 13),
    "hash_signs": ("# " * 10 + STOPS * 45, "# " * 10 + STOPS * 44 + "the"),
    "ellipses": ("... " * 10 + STOPS * 45, "... " * 10 + STOPS * 44 + "the"),
    "bullet_lines": tuple(
        "\n".join(("- " if i < n else "") + STOPS * 5 + f"{i:03}" for i in range(10)) for n in (9, 10)
    ),
    "ellipsis_lines": tuple(
        "\n".join(STOPS * 5 + f"{i:03}" + ("..." if i < n else "") for i in range(10)) for n in (3, 4)
    ),
    "few_alphabetic_words": (STOPS * 40 + "1234 " * 20, STOPS * 40 + "1234 " * 21),
    "few_stop_words": ("the and " + "tea " * 60, "the " + "tea " * 60),
    "duplicate_lines": tuple(
        "\n".join([*(f"{STOPS * 9}{i:03}" for i in range(10 - n)), *["tea"] * n]) for n in (4, 5)
    ),
}


@pytest.mark.parametrize("rule", sorted(AT_THE_BOUND))
def test_each_rule_at_its_bound(rule):
    inside, outside = AT_THE_BOUND[rule]
    assert reasons(GopherQuality(), inside, outside) == [None, rule]


@pytest.mark.parametrize("part", ["line", "paragraph"])
def test_duplicates_at_their_bound(part):
    separator = "\n" if part == "line" else "\n\n"
    parts = [f"{STOPS * 3}{i:03}" for i in range(4)]
    relaxed = {f"max_duplicate_{other}s": 1.0 for other in ("line", "paragraph")}
    if part == "paragraph":
        relaxed["max_duplicate_line_chars"] = 1.0
    step = GopherQuality(min_words=0, min_mean_word_length=0, **relaxed)
    inside = separator.join([*parts, parts[0]])  # one fifth of all characters
    outside = separator.join([*parts[:-1], parts[-1].replace("and", "an", 1), parts[0]])
    assert reasons(step, inside, outside) == [None, f"duplicate_{part}_chars"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {"words": 0, "mean_word_length": 0, "bullet_lines": 0}),
        ("!!! ...", {"words": 0, "alphabetic_words": 0, "ellipsis_lines": 1}),
        ("日本語の文章です。", {"words": 1, "mean_word_length": 8}),
        ("مرحبا بالعالم، مرحبا", {"words": 3, "alphabetic_words": 3 / 4}),
        ("THE cat and The hat", {"stop_words": 2}),
        ("  • one\n\n\t- two\nthree", {"bullet_lines": 2 / 3}),
        ("so on… \r\nand on...", {"ellipsis_lines": 1, "ellipses": 2 / 6}),
        ("bathe other", {"stop_words": 0}),
    ],
)
def test_measures_of_strange_texts(text, expected):
    found = measures(GopherQuality(), text)
    assert {name: found[name] for name in expected} == pytest.approx(expected)


def test_a_bound_changes_nothing_that_is_measured():
    assert GopherQuality(min_words=1).tag_key() == GopherQuality().tag_key()

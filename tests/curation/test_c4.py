from __future__ import annotations

import pytest

from llm.curation.c4 import POLICIES, C4Quality
from tests.curation.judging import judged

GOOD = ["The first sentence stands here.", "Is this one a question?", 'He said: "That is the end of it."']
PAGE = "\n".join(GOOD)


def left(text: str, **settings) -> str:
    """What stays of a page with this line in it, less the page."""
    row = judged(C4Quality(**settings), [f"{PAGE}\n{text}"]).row(0, named=True)
    assert row["keep"]
    return row["text"].removeprefix(PAGE).removeprefix("\n")


@pytest.mark.parametrize(
    ("inside", "outside", "setting"),
    [
        ("It ends as lines should.", "It ends as titles do", {"terminal_punctuation": False}),
        ("One ends in a dot.", "One ends in three dots...", {"terminal_punctuation": False}),
        ("Here are five words now.", "Here are four words.", {"min_words_per_line": 4}),
        (
            f"A word of {'x' * 1000} is long.",
            f"A word of {'x' * 1001} is too long.",
            {"max_word_length": 1001},
        ),
        ("Please turn on your java machine.", "Please turn JavaScript on in it.", {"javascript": False}),
        ("We have a policy on cookies.", "Read here about our Cookie Policy.", {"policies": False}),
        ("It holds [sic] for all men.", "It holds for all men.[12]", {"remove_citations": False}),
    ],
)
def test_each_rule_on_lines(inside, outside, setting):
    assert left(inside) == inside
    if "remove_citations" in setting:
        assert left(outside) == "It holds for all men."
        assert left(outside, **setting) == "", "a bracket ends no sentence"
    else:
        assert left(outside) == ""
        assert left(outside, **setting) == outside


@pytest.mark.parametrize("policy", POLICIES)
def test_every_policy(policy):
    assert left(f"Note that this page has {policy.title()}.") == ""


def test_a_document_of_which_nothing_stays_goes_without_a_least_number_too():
    found = judged(C4Quality(min_sentences=0), ["menu", "", GOOD[0]])
    assert found["keep"].to_list() == [False, False, True]
    assert found["reason"].to_list() == ["too_few_sentences", "too_few_sentences", None]
    assert found["text"].to_list() == ["menu", "", GOOD[0]]


def test_rules_on_documents():
    texts = [
        PAGE,
        f"{PAGE}\nAnd then Lorem Ipsum goes on and on.",
        f"{PAGE}\nLorem ipsum",  # the line goes before the rule sees it
        f"{PAGE}\nThe function is f() {{ return 1; }} in all.",
        f"{PAGE}\n{{menu}}",
        "\n".join(GOOD[:2]),
        "Two of them are in here. This is the second one.\nThe third one is here.",
        "",
        "!!!",
    ]
    frame = judged(C4Quality(), texts)
    assert frame["reason"].to_list() == [
        None,
        "lorem_ipsum",
        "lines_removed",
        "curly_bracket",
        "lines_removed",
        "too_few_sentences",
        None,
        "too_few_sentences",
        "too_few_sentences",
    ]
    assert frame["score"].to_list()[5] == 2
    assert frame["score"].to_list()[2] == 0.25
    untouched = frame["text"].to_list()
    assert [untouched[i] for i in (1, 3, 5)] == [texts[i] for i in (1, 3, 5)], "what goes stays as it was"
    switched = judged(C4Quality(lorem_ipsum=False, curly_bracket=False), texts)
    assert switched["reason"].to_list()[1:4] == [None, "lines_removed", None]


@pytest.mark.parametrize(
    ("line", "n"),
    [
        ("Mr. Fox met the U.S. team at 5 p.m. on the day.", 1),
        ("It cost 3.50 dollars on x.org in all.", 1),
        ("He left... and then he came back.", 1),
        ("What? No! That is the end of it.", 3),
        ('He said: "We go now." She said: "No!" That was it.', 3),
        ("Wait a while (or two). Then go on with it.", 2),
    ],
)
def test_sentences_in_a_line(line, n):
    assert judged(C4Quality(min_sentences=n), [line])["keep"].to_list() == [True]
    removed = judged(C4Quality(min_sentences=n + 1), [line])
    assert removed.select("reason", "score").row(0) == ("too_few_sentences", n)


def test_line_breaks_of_all_kinds_and_spaces():
    frame = judged(C4Quality(), ["  " + "\r\n".join(GOOD), "\u2028".join(GOOD), "\n\n".join(GOOD)])
    assert frame["text"].to_list() == [PAGE] * 3
    assert frame["reason"].to_list() == ["lines_trimmed", "lines_trimmed", "lines_removed"]


def test_other_domains_are_left_alone():
    code = "int main() { return 0; }"
    frame = judged(C4Quality(except_domains=["code"]), [code, "  \n"], "code")
    assert frame["text"].to_list() == [code, "  \n"]
    assert frame["reason"].to_list() == [None, None]

"""Documents removed by what a trained classifier says of them or of their paragraphs."""

from __future__ import annotations

import pytest

from llm.curation.base import judge
from llm.curation.toxicity import Toxicity
from tests.curation.given import classifier
from tests.curation.test_steps import corpus

SHEEP, SHIP = "the sheep graze on the green hill", "a ship sails across the cold sea"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Of this classifier's two labels, sheep are the ones not wanted."""
    return classifier(tmp_path_factory.mktemp("toxicity"))


def test_what_reaches_the_threshold_goes(trained: str):
    frame = corpus([SHEEP, SHIP, "", SHEEP], ["text", "text", "text", "code"])
    judged = judge(Toxicity(trained, except_domains=["code"]), frame)
    assert judged["keep"].to_list() == [False, True, True, True]
    assert judged["reason"].to_list() == ["toxic", None, None, None]
    assert judged["toxicity"].is_not_null().to_list() == [True, True, False, True]
    assert judge(Toxicity(trained, threshold=1.01), frame)["keep"].all()


def test_a_paragraph_is_not_hidden_by_a_long_document(trained: str):
    ships = "\n\n".join([SHIP] * 9)
    frame = corpus([f"{ships}\n \n{SHEEP}\n\n{ships}", ships, "\n\n", ""])
    whole = judge(Toxicity(trained), frame)
    parts = judge(Toxicity(trained, unit="paragraph"), frame)
    assert whole["keep"].to_list() == [True] * 4
    assert parts["keep"].to_list() == [False, True, True, True]
    alone = judge(Toxicity(trained), corpus([SHEEP]))["toxicity"][0]
    assert parts["toxicity"][0] == alone, "a document is as toxic as its worst paragraph"
    assert parts["toxicity"].is_null().to_list() == [False, False, True, True]
    assert Toxicity(trained).tag_key() != Toxicity(trained, unit="paragraph").tag_key()

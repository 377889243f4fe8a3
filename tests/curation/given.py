"""What a step's yaml leaves to its user (`???`), made small: a classifier, a list of words, a checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from llm.checkpoints.local import LocalCheckpoints
from llm.checkpoints.recipe import recipe_of
from llm.classifiers.examples import Example
from llm.classifiers.fasttext import FastText
from llm.classifiers.normalisation import Normalisation
from llm.classifiers.recipe import Recipe
from llm.tokenizers.byte import train as byte_tokenizer
from tests.evaluation.conftest import compose_decoder
from tests.models.composition import load_model

CONTEXT = 512
"""Tokens the checkpoint reads at once."""


class Pairs:
    """Examples that are in no file."""

    training_only = False

    def __init__(self, **texts: list[str]) -> None:
        self.texts = texts

    def read(self):
        return (Example(text, label) for label, texts in self.texts.items() for text in texts)

    def fingerprint(self) -> str:
        return "pairs"


def train(folder: Path, examples: Pairs, positive: str, **settings: Any) -> Path:
    folder.mkdir(exist_ok=True)
    recipe = Recipe(
        {"pairs": examples}, [positive], Normalisation(), FastText(**settings), precision_target=None
    )
    recipe.train(*recipe.split(seed=0), folder, seed=0)
    return folder


def classifier(folder: Path) -> str:
    """Tells sentences about sheep (positive) from sentences about ships."""
    numbers = [chr(97 + i // 26) + chr(97 + i % 26) for i in range(200)]
    sheep = [f"the sheep {i} graze on the green hill {i}" for i in numbers]
    ships = [f"a ship {i} sails across the cold sea {i}" for i in numbers]
    return str(train(folder / "classifier", Pairs(sheep=sheep, ships=ships), "sheep", dim=4, bucket=1000))


def words(folder: Path) -> str:
    """A list of two words."""
    path = folder / "words.txt"
    path.write_text("committee\nsea serpent\n")
    return str(path)


def checkpoint(folder: Path) -> str:
    """A run with a small decoder on bytes, not trained."""
    tokenizer = byte_tokenizer([])
    model = compose_decoder(tokenizer.vocab_size, CONTEXT)
    recipe = recipe_of(load_model("decoder", d_model=32, n_layers=2, n_heads=4))
    LocalCheckpoints().save(
        folder / "model" / "checkpoints",
        step=1,
        model=model.state_dict(),
        optimizer={},
        state={},
        description={
            "config": recipe,
            "vocab_size": tokenizer.vocab_size,
            "max_seq_len": CONTEXT,
            "info": {},
        },
        tokenizer=tokenizer,
    )
    return str(folder / "model")


GIVEN: dict[str, dict[str, Callable[[Path], str]]] = {
    "QualityClassifier": {"path": classifier},
    "Toxicity": {"path": classifier},
    "TopShare": {"tagger.path": classifier},
    "WordList": {"path": words},
    "Perplexity": {"scorer.checkpoint": checkpoint},
}
"""By class and key, what makes it in a folder."""


def fill(config: DictConfig, folder: Path) -> None:
    """Puts what a step needs in place of `???`."""
    name = config._target_.rpartition(".")[2]
    for key in sorted(OmegaConf.missing_keys(config)):
        OmegaConf.update(config, key, GIVEN[name][key](folder))

"""task=coordinate_check: do activations keep their size when the model gets wider?"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import nn

from llm import files
from llm.models.parametrization.standard import Standard
from llm.reports import coordinates
from llm.runs.run import Run
from llm.training.coordinate_check import Size, measure, n_models, slopes, steepest
from llm.types import Batch, ConfigError

VERSION = 1

Count = Annotated[int, Field(gt=0)]


def coordinate_check(
    *,
    run: Run,
    model: Callable[..., nn.Module],
    optimizer: Callable[..., torch.optim.Optimizer],
    widths: list[Count],
    n_layers: Count | None = 2,
    n_steps: Count = 8,
    n_seeds: Count = 2,
    seq_len: Annotated[int, Field(gt=1)] = 16,
    batch_size: Count = 2,
    vocab_size: Annotated[int, Field(gt=1)] = 256,
    tolerance: Annotated[float, Field(gt=0)] = 0.1,
    contrast: bool = True,
) -> float:
    """Trains models of several widths on one random batch and fits size ~ width^slope in every layer.

    A model keeps what its config says of heads and of the inner width as `llm.models.parametrization.base`
    has it: without a `head_dim` heads get wider, with one there are more of them; a `d_ff` grows along.

    Args:
        run: Where the table and the plot go; ``coordinate_check.png``.
        model: Any decoder, with its parametrization.
        optimizer: Makes the optimizer; its learning rate must be one at which the batch is learnt.
        widths: `d_model` of the models.
        n_layers: Their blocks; None for as many as the model has.
        n_steps: Optimizer steps before the sizes are judged.
        n_seeds: Models of the largest width, each with a batch of its own; of narrower ones there are more.
        seq_len: Tokens in a row of the batch.
        batch_size: Rows of the batch. What theory says of infinite width shows best when a batch has fewer
            tokens than the narrowest model has coordinates.
        vocab_size: Token ids.
        tolerance: Largest absolute slope that counts as flat.
        contrast: Whether a model of another parametrization is also checked with the standard one.

    Returns:
        The largest absolute slope of any layer.

    Raises:
        ConfigError: `widths` are fewer than two, or there is no model of one of them.
    """
    if len(set(widths)) < 2:
        raise ConfigError("widths", widths, "a slope needs two widths or more, as [64,128,256]")
    sizes: dict[str, Any] = {"vocab_size": vocab_size, "max_seq_len": seq_len}
    sizes |= {} if n_layers is None else {"n_layers": n_layers}
    checked = partial(model, **sizes)
    kinds = {_kind(checked): checked}
    if contrast and _kind(checked) != "standard":
        kinds["standard"] = partial(checked, parametrization=Standard)
    found: dict[str, list[Size]] = {}
    ordered = sorted(set(widths))
    total = len(kinds) * n_steps * sum(n_models(width, ordered[-1], n_seeds) for width in ordered)
    with run.progress("coordinate check", total) as bar:
        for kind, make in kinds.items():
            found[kind] = measure(
                make,
                optimizer,
                partial(_batch, (batch_size, seq_len), vocab_size),
                widths=ordered,
                n_steps=n_steps,
                n_seeds=n_seeds,
                seed=run.seed,
                on_step=lambda width, loss, kind=kind: bar.advance(1, kind=kind, width=width, loss=loss),  # type: ignore[misc]
            )
    return _conclude(run, found, n_steps, tolerance)


def _batch(shape: tuple[int, int], vocab_size: int, seed: int) -> Batch:
    """Random rows: nothing but the parametrization is looked at."""
    n_rows, seq_len = shape
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randint(vocab_size, (n_rows, seq_len + 1), generator=generator)
    return Batch(rows[:, :-1].contiguous(), rows[:, 1:].contiguous())


def _kind(model: Any) -> str:
    """The name of a model's parametrization in lower case."""
    chosen = model.keywords.get("parametrization", Standard)
    return str(getattr(chosen, "func", chosen).__name__).lower()


def _conclude(run: Run, found: dict[str, list[Size]], n_steps: int, tolerance: float) -> float:
    """Writes the record and says the verdict; the first of `found` is what is checked."""
    run.log_table(
        "coordinates",
        ["parametrization", *Size._fields],
        [[kind, *one] for kind, sizes in found.items() for one in sizes],
    )
    for step in range(n_steps + 1):
        metrics = {f"{kind}_largest_slope": abs(steepest(sizes, step)[1]) for kind, sizes in found.items()}
        run.log(metrics, step=step)
    for kind, sizes in found.items():
        layer, slope = steepest(sizes, n_steps)
        run.summary[f"{kind}_largest_slope"] = abs(slope)
        run.summary |= {
            f"{kind}_slope_{name.replace(' ', '_')}": s for name, s in slopes(sizes, n_steps).items()
        }
        flat = abs(slope) <= tolerance
        word = "keeps its size" if flat else "grows" if slope > 0 else "shrinks"
        run.say(
            f"{kind}: {'every layer' if flat else layer} {word}; the steepest is {layer}: width^{slope:+.2f}"
        )
    checked, sizes = next(iter(found.items()))
    worst = abs(steepest(sizes, n_steps)[1])
    run.summary |= {"largest_slope": worst, "is_flat": worst <= tolerance}
    if run.is_main:
        picture = run.directory / "coordinate_check.png"
        files.write_bytes(picture, coordinates.draw(found, n_steps, tolerance))
        run.say(f"the plot: {picture}")
    verdict = "passes" if worst <= tolerance else "fails"
    run.say(
        f"{checked} {verdict}: largest slope {worst:.3f} after {n_steps} steps, at most {tolerance:g} is flat"
    )
    return worst

"""Do activations keep their size when a model gets wider, at first and while it learns?

What a parametrization promises is a statement about sizes: after a few steps every activation moves as far in
a wide model as in a narrow one. Yang, Hu et al. 2022, "Tensor Programs V", appendix D.1 ("coordinate
checking"): train models of several widths for a few steps on one batch and look at the mean absolute value of
the coordinates of every layer. A layer that grows with the width will blow up in a model that is wide enough,
one that shrinks has stopped learning there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from llm import runtime
from llm.models.evaluating import evaluating
from llm.models.parametrization.base import Width, learning_rates
from llm.optimizers.groups import MakeOptimizer, with_rates
from llm.training.losses import NextToken
from llm.types import Batch, ConfigError


class Size(NamedTuple):
    """One measurement.

    Attributes:
        width: `d_model`.
        seed: of the first weights.
        step: optimizer steps made.
        layer: what was looked at.
        size: mean absolute value of its activations.
    """

    width: int
    seed: int
    step: int
    layer: str
    size: float


def at_width(model: Callable[..., nn.Module], d_model: int, *, key: str = "widths") -> partial[nn.Module]:
    """A `model` component at another width; see `llm.models.parametrization.base.Width.at`.

    Raises:
        ConfigError: it has no width to change, or cannot be so wide.
    """
    given: dict[str, Any] = getattr(model, "keywords", {})
    if not {"d_model", "n_heads"} <= given.keys():
        kind = getattr(getattr(model, "func", model), "__qualname__", model)
        raise ConfigError(
            "model", kind, "has no d_model and n_heads to make wider; choose one as model=decoder"
        )
    n_heads = given["n_heads"]
    kv = given.get("n_kv_heads") or n_heads
    width = Width(given["d_model"], n_heads, kv, given.get("head_dim"), given.get("d_ff"))
    return partial(model, **vars(width.at(d_model, key=key)))


def n_models(width: int, widest: int, n_seeds: int) -> int:
    """How many models of a width: as many more as it is narrower, up to eight times.

    Narrow models differ more from seed to seed, and cost less.
    """
    return n_seeds * max(1, min(8, widest // width))


def measure(
    model: Callable[..., nn.Module],
    optimizer: MakeOptimizer,
    batch_of: Callable[[int], Batch],
    *,
    widths: Sequence[int],
    n_steps: int,
    n_seeds: int,
    seed: int = 0,
    on_step: Callable[[int, float], object] = lambda _width, _loss: None,
) -> list[Size]:
    """Sizes of all activations at all widths, before the first step and after each.

    Args:
        model: makes a model; of every width by `at_width`.
        optimizer: makes its optimizer; the model's learning rates are applied.
        batch_of: what all steps of a model learn from, by its seed.
        widths: of the models.
        n_steps: optimizer steps.
        n_seeds: models of the largest width; of the others see `n_models`.
        seed: of the first model of each width; the next have the next.
        on_step: called after each step with the width and the loss.

    Raises:
        ConfigError: there is no model of one of the widths, or it is no decoder.
    """
    makers = {width: at_width(model, width) for width in widths}  # all are refused before one is trained
    device, loss_of = runtime.device(), NextToken().loss
    found: list[Size] = []
    for width, make in makers.items():
        for number in range(seed, seed + n_models(width, max(widths), n_seeds)):
            batch = batch_of(number).to(device)
            one = make()
            if getattr(one, "start_id", None) is not None:
                mend = "reads a source besides: only decoders are checked; choose one as model=decoder"
                raise ConfigError("model", type(one).__name__, mend)
            one.init_weights(torch.Generator().manual_seed(number))  # type: ignore[operator]
            one.to(device).train()
            updater = with_rates(optimizer, learning_rates(one))(one.named_parameters())
            for step in range(n_steps + 1):
                if step:
                    loss, _ = loss_of(one, batch)
                    torch.autograd.backward(loss)
                    updater.step()
                    updater.zero_grad(set_to_none=True)
                    on_step(width, loss.item())
                found += [
                    Size(width, number, step, layer, size) for layer, size in _sizes(one, batch).items()
                ]
    return found


def _sizes(model: nn.Module, batch: Batch) -> dict[str, float]:
    """Mean absolute activation by layer, in the order of the forward pass."""
    sizes: dict[str, float] = {}
    with evaluating(model), _watching(model, sizes):
        sizes["logits"] = _size(model(batch))
    return sizes


def _size(x: Float[Tensor, "*shape"]) -> float:
    return float(x.detach().float().abs().mean())


@contextmanager
def _watching(model: nn.Module, sizes: dict[str, float]) -> Iterator[None]:
    """Notes what the stream is in front of the blocks and behind each, and what their parts add to it."""

    def note(layer: str, _module: nn.Module, _inputs: Any, output: Tensor) -> None:
        sizes[layer] = _size(output)

    def before(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        sizes["embedding"] = _size(inputs[0])

    blocks: Any = model.blocks
    hooks = [blocks[0].register_forward_pre_hook(before)]
    for number, block in enumerate(blocks):
        watched = {part: _last_of(block, part) for part in ("attention", "feed_forward")}
        for kind, module in {**watched, "stream": block}.items():
            hooks.append(module.register_forward_hook(partial(note, f"{kind} {number}")))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _last_of(block: Any, part: str) -> nn.Module:
    """The module that makes what a part adds to the stream: itself, or the norm behind it."""
    behind = f"{part}_norm" if getattr(block, "placement", None) == "output" else f"{part}_output_norm"
    module: nn.Module = getattr(block, behind, None) or getattr(block, part)
    return module


def slopes(sizes: Sequence[Size], step: int) -> dict[str, float]:
    """By layer, the slope of log size against log width after `step` steps: size ~ width^slope.

    Least squares through the mean over seeds of the log at each width.
    """
    widths = sorted({one.width for one in sizes})
    logs: dict[str, dict[int, list[float]]] = {}
    for one in sizes:
        if one.step == step:
            logs.setdefault(one.layer, {w: [] for w in widths})[one.width].append(float(np.log2(one.size)))
    return {
        layer: float(np.polyfit(np.log2(widths), [np.mean(at[w]) for w in widths], 1)[0])
        for layer, at in logs.items()
    }


def steepest(sizes: Sequence[Size], step: int) -> tuple[str, float]:
    """The layer of the largest absolute slope, and the slope."""
    return max(slopes(sizes, step).items(), key=lambda item: abs(item[1]))

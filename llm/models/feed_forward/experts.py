"""A mixture of experts: each token is worked on by the few feed-forward parts that a router picks for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal, cast

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from llm.models.base import FeedForward, Sizes
from llm.types import ConfigError

Count = Annotated[int, Field(gt=0)]


class MixtureOfExperts(nn.Module):
    """A weighted sum of `n_active` experts' results a token; no token is dropped, whatever the load.

    Shazeer et al. 2017, "Outrageously Large Neural Networks", section 2; Jiang et al. 2024, "Mixtral of
    Experts", section 2.1 (``softmax`` gates); DeepSeek-AI 2024, "DeepSeek-V3", section 2.1.2 (``sigmoid``
    gates, a bias that only decides who is picked, shared experts, groups).

    Args:
        sizes: of the model; an expert's inner width is `d_expert`, or the model's `d_ff`.
        expert: one expert, called ``expert(sizes)``.
        n_experts: how many the router chooses from.
        n_active: how many work on a token.
        d_expert: inner width of one expert; None for `d_ff`.
        n_shared: experts that work on every token besides, as one of `n_shared` times the width.
        gate: how the router's scores become weights.
        normalised: whether the weights of a token's experts are scaled to sum to one.
        scaling: multiplies the weights last.
        n_groups: experts are in so many groups ...
        n_active_groups: ... and a token's experts come from so many of them, those with the best two scores.
        dense_layers: the first so many blocks have a plain `expert` of the model's `d_ff` instead.

    Attributes:
        load: of the last batch, the share of the choices that fell on each expert, [n_experts].
        balance: of the last batch, the load-balancing loss (Fedus et al. 2021, "Switch Transformers",
            equation 4): 1 when all experts are used alike, and more otherwise. It carries gradients.
    """

    load: Tensor | None = None
    balance: Tensor | None = None
    selection_bias: Tensor | None

    def __init__(
        self,
        sizes: Sizes,
        *,
        expert: Callable[[Sizes], FeedForward],
        n_experts: Count = 8,
        n_active: Count = 2,
        d_expert: Count | None = None,
        n_shared: Annotated[int, Field(ge=0)] = 0,
        gate: Literal["softmax", "sigmoid"] = "softmax",
        normalised: bool = True,
        scaling: Annotated[float, Field(gt=0)] = 1.0,
        n_groups: Count = 1,
        n_active_groups: Count = 1,
        dense_layers: Annotated[int, Field(ge=0)] = 0,
    ) -> None:
        super().__init__()
        self.check_arguments(
            n_experts=n_experts, n_active=n_active, n_groups=n_groups, n_active_groups=n_active_groups
        )
        self.n_experts, self.n_active, self.gate = n_experts, n_active, gate
        self.normalised, self.scaling = normalised, scaling
        self.n_groups, self.n_active_groups = n_groups, n_active_groups
        self.dense = expert(sizes) if sizes.layer < dense_layers else None
        if self.dense is not None:
            return
        width = d_expert or sizes.d_ff
        self.router = nn.Linear(sizes.d_model, n_experts, bias=False)
        experts = [expert(replace(sizes, d_ff=width)) for _ in range(n_experts)]
        self.experts = nn.ModuleList(cast("list[nn.Module]", experts))
        shared = n_shared * width if width else None
        self.shared = expert(replace(sizes, d_ff=shared)) if n_shared else None
        bias = torch.zeros(n_experts) if gate == "sigmoid" else None
        self.register_buffer("selection_bias", bias)

    @staticmethod
    def check_arguments(
        *, n_experts: int, n_active: int, n_groups: int = 1, n_active_groups: int = 1
    ) -> None:
        """Refuses more active experts than there are, and groups of unequal size."""
        if n_active > n_experts:
            raise ConfigError("n_active", n_active, f"there are n_experts={n_experts} only")
        if n_experts % n_groups:
            raise ConfigError("n_groups", n_groups, f"n_experts={n_experts} is not divisible by it")
        if n_active_groups > n_groups:
            raise ConfigError("n_active_groups", n_active_groups, f"there are n_groups={n_groups} only")
        if n_active > n_active_groups * (n_experts // n_groups):
            mend = f"{n_active_groups} groups have {n_active_groups * (n_experts // n_groups)} experts only"
            raise ConfigError("n_active", n_active, mend)

    def forward(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        """Each place by itself; sets `load` and `balance`."""
        if self.dense is not None:
            return self.dense(x)
        tokens = x.flatten(0, 1)
        weights, chosen = self._route(tokens)
        mixed = torch.zeros_like(tokens)
        for number, expert in enumerate(self.experts):
            rows, places = (chosen == number).nonzero(as_tuple=True)
            # Also without any token: every parameter then has a gradient, of zero, as DDP needs.
            done = expert(tokens[rows][None])[0] * weights[rows, places, None]
            mixed = mixed.index_add(0, rows, done.to(mixed.dtype))
        y = mixed.view_as(x)
        return y if self.shared is None else y + self.shared(x)

    def _route(self, tokens: Float[Tensor, "N D"]) -> tuple[Float[Tensor, "N k"], Int[Tensor, "N k"]]:
        """Weights of each token's experts, and which they are."""
        logits = self.router(tokens).float()
        scores = logits.softmax(-1) if self.gate == "softmax" else logits.sigmoid()
        ranked = scores if self.selection_bias is None else scores + self.selection_bias
        if self.n_groups > 1:
            groups = ranked.unflatten(-1, (self.n_groups, -1))
            best = (
                groups.topk(min(2, groups.shape[-1]), -1)
                .values.sum(-1)
                .topk(self.n_active_groups, -1)
                .indices
            )
            is_open = torch.zeros_like(groups[..., 0], dtype=torch.bool).scatter(-1, best, True)
            ranked = groups.masked_fill(~is_open[..., None], -torch.inf).flatten(-2)
        chosen = ranked.topk(self.n_active, -1).indices
        weights = scores.gather(-1, chosen)
        if self.normalised:
            weights = weights / weights.sum(-1, keepdim=True)
        self._note(scores, chosen)
        return (weights * self.scaling).to(tokens.dtype), chosen

    def _note(self, scores: Float[Tensor, "N E"], chosen: Int[Tensor, "N k"]) -> None:
        counts = torch.bincount(chosen.flatten(), minlength=self.n_experts)
        self.load = counts / chosen.numel()
        probabilities = scores / scores.sum(-1, keepdim=True)
        self.balance = self.n_experts * (self.load * probabilities.mean(0)).sum()

    def init_weights(self, generator: torch.Generator) -> None:  # noqa: ARG002
        """The selection bias starts at zero."""
        if self.dense is None and self.selection_bias is not None:
            nn.init.zeros_(self.selection_bias)

    def parallel_plan(self) -> Mapping[str, str]:
        """Every expert is split as it would be alone; the router is whole on every rank."""
        if self.dense is not None:
            return {f"dense.{name}": style for name, style in self.dense.parallel_plan().items()}
        parts: dict[str, Any] = {f"experts.{n}": expert for n, expert in enumerate(self.experts)}
        if self.shared is not None:
            parts["shared"] = self.shared
        return {
            f"{part}.{name}": style
            for part, module in parts.items()
            for name, style in module.parallel_plan().items()
        }

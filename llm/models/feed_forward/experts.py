"""A mixture of experts: each token is worked on by the few feed-forward parts that a router picks for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal, cast

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from llm.models.balancing import Routing
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
        balance_loss: coefficient of the training loss for uneven use, summed over layers (Fedus et al. 2021,
            "Switch Transformers", equation 4, with 0.01; DeepSeek-V3, equation 17, with 0.0001, there a mean
            over sequences and here over the batch).
        z_loss: coefficient of the training loss for large scores (Zoph et al. 2022, equation 5: 0.001).
        bias_speed: how far the bias that decides who is picked moves after each step, up for experts with
            less than their share of the tokens and down for the others (Wang et al. 2024,
            "Auxiliary-Loss-Free Load Balancing", algorithm 1: 0.001). For sigmoid gates.
    """

    noted: list[Routing] | None = None
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
        balance_loss: Annotated[float, Field(ge=0)] = 0.0,
        z_loss: Annotated[float, Field(ge=0)] = 0.0,
        bias_speed: Annotated[float, Field(ge=0)] = 0.0,
    ) -> None:
        super().__init__()
        self.check_arguments(
            n_experts=n_experts,
            n_active=n_active,
            n_groups=n_groups,
            n_active_groups=n_active_groups,
            gate=gate,
            bias_speed=bias_speed,
        )
        self.balance_loss, self.z_loss, self.bias_speed = balance_loss, z_loss, bias_speed
        self.n_experts, self.n_active, self.gate = n_experts, n_active, gate
        self.normalised, self.scaling = normalised, scaling
        self.n_groups, self.n_active_groups = n_groups, n_active_groups
        self.dense = expert(sizes) if sizes.layer < dense_layers else None
        self.routes = self.dense is None
        if not self.routes:
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
        *,
        n_experts: int,
        n_active: int,
        n_groups: int = 1,
        n_active_groups: int = 1,
        gate: str = "softmax",
        bias_speed: float = 0.0,
    ) -> None:
        """Refuses more active experts than there are, unequal groups, and a bias that is not there."""
        if bias_speed and gate != "sigmoid":
            mend = f"gate={gate} has no bias that decides who is picked; take gate=sigmoid, or balance_loss"
            raise ConfigError("bias_speed", bias_speed, mend)
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
        """Each place by itself; puts a `Routing` into `noted` where that is wanted."""
        if self.dense is not None:
            return self.dense(x)
        tokens = x.flatten(0, 1)
        weights, chosen = self._route(tokens)
        counts = torch.bincount(chosen.flatten(), minlength=self.n_experts)
        # Choices in the order of their experts: one look-up for all, and each expert has a slice.
        order = chosen.flatten().argsort(stable=True)
        slices = torch.split(tokens.index_select(0, order // self.n_active), counts.tolist())
        # Also without any token: every parameter then has a gradient, of zero, as DDP needs.
        done = torch.cat(
            [expert(part[None])[0] for expert, part in zip(self._experts(), slices, strict=True)]
        )
        # Back in the order of the tokens, and summed from there: adding up by index is random on a GPU.
        back = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
        mixed = (done.index_select(0, back).view(*weights.shape, -1) * weights[..., None]).sum(1)
        y: Tensor = mixed.to(x.dtype).view_as(x)
        return y if self.shared is None else y + self.shared(x)

    def _experts(self) -> Iterator[FeedForward]:
        return cast("Iterator[FeedForward]", iter(self.experts))

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
        if torch.is_grad_enabled():
            # Also when nobody wants it: a forward pass that is repeated in backward must do the same work.
            routing = _routing(logits, scores, chosen)
            if self.noted is not None:
                self.noted.append(routing)
        return (weights * self.scaling).to(tokens.dtype), chosen

    @torch.no_grad()
    def rebalance(self, counts: Int[Tensor, " E"]) -> None:
        """Moves the selection bias after a step in which the experts were chosen so often.

        Where the router is not trained, as under adapters, nothing moves.
        """
        if self.selection_bias is not None and self.bias_speed and self.router.weight.requires_grad:
            missing = counts.float().mean() - counts
            self.selection_bias += self.bias_speed * missing.sign()

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


def _routing(
    logits: Float[Tensor, "N E"], scores: Float[Tensor, "N E"], chosen: Int[Tensor, "N k"]
) -> Routing:
    return Routing(
        shares=(scores / scores.sum(-1, keepdim=True)).sum(0),
        counts=torch.bincount(chosen.flatten(), minlength=scores.shape[-1]),
        squares=logits.logsumexp(-1).square().sum(),
        n_tokens=len(scores),
    )

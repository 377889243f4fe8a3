"""A decoder-only language model put together from parts: GPT-2 and LLaMA are YAML files, not classes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from llm.models.base import Attention, FeedForward, Mask, Norm, Position, Sizes
from llm.models.block import Block, Placement
from llm.models.cache import KVCache
from llm.models.initialisation import Initialisation, gpt2
from llm.models.masks import DocumentBlocks, attention_mask, fixed_places, places_in_documents
from llm.models.parametrization.base import Parametrization, Scales, Width, compare
from llm.models.parametrization.standard import Standard
from llm.types import Batch, ConfigError

Count = Annotated[int, Field(gt=0)]


class Decoder(nn.Module):
    """Token embedding, a pile of blocks, a last norm, and a head that scores the next token.

    Args:
        vocab_size: number of token ids.
        max_seq_len: longest sequence, in tokens.
        d_model: width of the residual stream.
        n_layers: number of blocks.
        n_heads: attention heads; divides `d_model`.
        attention: ``(sizes, rotate=) -> Attention``.
        feed_forward: ``(sizes) -> FeedForward``.
        position: ``(sizes) -> Position``.
        norm: ``(d_model, bias=) -> nn.Module``.
        norm_placement: where a block has its norms; see `llm.models.block.Block`.
        parallel_blocks: whether attention and feed-forward read the same stream and are added together.
        head_dim: width of one head; None for ``d_model / n_heads``.
        scale_embeddings: whether token embeddings are multiplied by the root of `d_model` (Vaswani et al.
            2017, section 3.4; Gemma).
        logit_soft_cap: logits z become ``logit_soft_cap * tanh(z / logit_soft_cap)`` (Gemma 2, section 2).
        n_kv_heads: key and value heads, shared by several query heads when fewer; None for `n_heads`.
        d_ff: inner width of the feed-forward part; None for the part's own rule.
        dropout: on embeddings, attention weights and both parts' results, while training.
        bias: whether linear layers and norms carry biases; the head never does.
        tie_embeddings: whether the head scores with the token embeddings themselves.
        init_std: standard deviation of the first weights.
        initialisation: sets the first weights; see `llm.models.initialisation`.
        parametrization: ``(width) -> Parametrization``: what follows from the model's width.

    Attributes:
        scales: what the parametrization comes to in this model.

    Raises:
        ConfigError: sizes that do not fit together.
    """

    position: Position

    def __init__(
        self,
        vocab_size: Count,
        max_seq_len: Count,
        d_model: Count,
        n_layers: Count,
        n_heads: Count,
        attention: Callable[..., Attention],
        feed_forward: Callable[..., FeedForward],
        position: Callable[..., Position],
        norm: Norm,
        n_kv_heads: Count | None = None,
        head_dim: Count | None = None,
        d_ff: Count | None = None,
        norm_placement: Placement = "pre",
        parallel_blocks: bool = False,
        scale_embeddings: bool = False,
        logit_soft_cap: Annotated[float, Field(gt=0)] | None = None,
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0,
        bias: bool = False,
        tie_embeddings: bool = True,
        init_std: Annotated[float, Field(gt=0)] = 0.02,
        initialisation: Initialisation = gpt2,
        parametrization: Callable[[Width], Parametrization] = Standard,
    ) -> None:
        given = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        super().__init__()
        self.check_arguments(
            d_model=d_model,
            n_heads=n_heads,
            n_kv_heads=n_kv_heads,
            head_dim=head_dim,
            norm_placement=norm_placement,
            parallel_blocks=parallel_blocks,
        )
        self.vocab_size, self.max_seq_len = vocab_size, max_seq_len
        self.dropout, self.init_std, self.initialisation = dropout, init_std, initialisation
        width = Width(d_model, n_heads, n_kv_heads or n_heads, head_dim, d_ff)
        rules = parametrization(width)
        # what makes embeddings as large as the base's must not grow with the width
        self.embedding_scale = math.sqrt(rules.base.d_model) if scale_embeddings else 1.0
        self.logit_soft_cap = logit_soft_cap

        def sizes(layer: int) -> Sizes:
            numbers = (
                d_model,
                n_layers,
                n_heads,
                n_kv_heads or n_heads,
                d_ff,
                max_seq_len,
                bias,
                dropout,
                layer,
            )
            return Sizes(*numbers, head_dim=head_dim or 0, base_head_dim=rules.base.d_head)

        self.embedding = nn.Embedding(vocab_size, d_model)
        self.position = position(sizes(0))
        self.blocks = nn.ModuleList(
            Block(
                attention=attention(sizes(layer), rotate=self.position.rotate),
                feed_forward=feed_forward(sizes(layer)),
                norm=lambda: norm(d_model, bias=bias),
                placement=norm_placement,
                parallel=parallel_blocks,
                dropout=dropout,
            )
            for layer in range(n_layers)
        )
        self.norm = norm(d_model, bias=bias)
        self.unembedding = None if tie_embeddings else nn.Linear(d_model, vocab_size, bias=False)
        self.scales = Scales()
        if rules.base != width:
            base = {**given, **vars(rules.base), "parametrization": Standard}
            self.scales = compare(self, lambda: _without_storage(base), rules)

    @staticmethod
    def check_arguments(
        *,
        d_model: int,
        n_heads: int,
        n_kv_heads: int | None = None,
        head_dim: int | None = None,
        norm_placement: Placement = "pre",
        parallel_blocks: bool = False,
    ) -> None:
        """Refuses head counts that do not divide what they must, and norms that a parallel block has not."""
        if head_dim is None and d_model % n_heads:
            raise ConfigError("n_heads", n_heads, _not_divisible("d_model", d_model, n_heads))
        if n_kv_heads and n_heads % n_kv_heads:
            raise ConfigError("n_kv_heads", n_kv_heads, _not_divisible("n_heads", n_heads, n_kv_heads))
        if parallel_blocks and norm_placement == "post":
            mend = "parallel blocks have no place for it; take pre, output or sandwich"
            raise ConfigError("norm_placement", norm_placement, mend)

    def hidden(self, batch: Batch, cache: KVCache | None = None) -> Float[Tensor, "B T D"]:
        """The normalised stream after the last block.

        Args:
            batch: token ids; `targets` are not read. With a `cache`, only the new tokens' ids, while
                `padding` covers cached and new tokens.
            cache: what earlier calls left; it is extended.

        Raises:
            ConfigError: more tokens than `max_seq_len`, or a source for an encoder.
        """
        assert cache is None or batch.documents is None, "several documents in a row are read without a cache"
        if batch.source is not None:
            mend = "has a source for an encoder to read, this model has none; take model=t5, or data=text"
            raise ConfigError("data", "pairs", mend)
        n_new, positions = batch.tokens.shape[1], batch.positions
        rows = None if cache is None else cache.rows(n_new)
        if rows is not None and cache is not None:  # a static cache: its numbers are never asked for
            places, mask = fixed_places(rows, cache.capacity, batch.padding, self.position.bias)
        else:
            n_past = cache.length if cache is not None else 0
            if batch.padding is None and positions is None and n_past + n_new > self.max_seq_len:
                mend = f"the model reads at most max_seq_len={self.max_seq_len} tokens; shorten the sequences"
                raise ConfigError("seq_len", n_past + n_new, mend)
            places, mask = _positions(n_past, n_new, batch), self._mask(n_past, n_new, batch)
        if positions is None:
            positions = places
        x = self.embedding(batch.tokens)
        if self.embedding_scale != 1.0:
            x = x * torch.tensor(self.embedding_scale, dtype=x.dtype, device=x.device)
        x = self.position.embed(x, positions)
        if self.dropout:
            x = F.dropout(x, self.dropout, self.training)
        for layer, block in enumerate(self.layers()):
            x = block(x, positions=positions, mask=mask, cache=None if cache is None else cache[layer])
        normed: Tensor = self.norm(x)
        return normed

    def _mask(self, n_past: int, n_new: int, batch: Batch) -> Mask | DocumentBlocks | None:
        """Causal, within documents, without padding, with what the positions add to the scores."""
        device, documents = batch.tokens.device, batch.documents
        bias = self.position.bias(n_past, n_new, device)
        in_blocks = documents is not None and bias is None and batch.padding is None
        if in_blocks and device.type == "cuda" and self._blocks_everywhere():
            assert documents is not None
            return DocumentBlocks(documents)
        allowed = attention_mask(
            n_past, n_new, batch.padding, device, documents=documents, needed=bias is not None
        )
        if bias is None:
            return cast("Mask | None", allowed)
        biased: Tensor = bias.masked_fill(~allowed, -torch.inf)
        return biased

    def _blocks_everywhere(self) -> bool:
        """Whether every layer's attention understands `DocumentBlocks`."""
        return all(getattr(block.attention, "block_masks", False) for block in self.layers())

    def layers(self) -> Iterator[Block]:
        """`blocks`, by their type."""
        return cast("Iterator[Block]", iter(self.blocks))

    def head(self, hidden: Float[Tensor, "*B D"]) -> Float[Tensor, "*B V"]:
        """Scores (logits) of every token id to come next."""
        if self.scales.logits != 1.0:
            hidden = hidden * self.scales.logits
        logits = F.linear(hidden, (self.unembedding or self.embedding).weight)
        if self.logit_soft_cap is not None:
            logits = self.logit_soft_cap * torch.tanh(logits / self.logit_soft_cap)
        return logits

    def forward(self, batch: Batch, cache: KVCache | None = None) -> Float[Tensor, "B T V"]:
        """``head(hidden(batch))``."""
        return self.head(self.hidden(batch, cache))

    @torch.no_grad()
    def init_weights(self, generator: torch.Generator) -> None:
        """Sets every parameter and buffer; see `llm.models.initialisation`."""
        self.initialisation(self, generator, std=self.init_std, n_layers=len(self.blocks))

    def learning_rates(self) -> Mapping[str, float]:
        """Multipliers of the learning rate by parameter name, where they are not 1.

        For optimizers of Adam's kind; `llm.optimizers.groups.with_rates` applies them.
        """
        rates = {name: scale.learning_rate for name, scale in self.scales.parameters.items()}
        return {name: rate for name, rate in rates.items() if rate != 1.0}

    def parallel_plan(self) -> Mapping[str, str]:
        """What may be wrapped or split, by module name.

        ``block``: a unit to shard or place by itself. ``column``, ``row``: linear layers to split by output
        and by input (Shoeybi et al. 2019, "Megatron-LM", section 3). All else is whole on every rank.
        """
        plan = {}
        for layer, block in enumerate(self.layers()):
            plan[f"blocks.{layer}"] = "block"
            for part in ("attention", "feed_forward"):
                for name, style in getattr(block, part).parallel_plan().items():
                    plan[f"blocks.{layer}.{part}.{name}"] = style
        return plan


def _without_storage(config: Mapping[str, Any]) -> Decoder:
    with torch.device("meta"):
        return Decoder(**config)


def _positions(n_past: int, n_new: int, batch: Batch) -> Int[Tensor, "#B T"]:
    """Places counted from each document's first token, or each sequence's, past the padding on its left."""
    if batch.documents is not None:
        return places_in_documents(batch.documents)
    if batch.padding is None:
        return torch.arange(n_past, n_past + n_new, device=batch.tokens.device)[None]
    return (batch.padding.long().cumsum(1) - 1).clamp(min=0)[:, n_past:]


def _not_divisible(name: str, total: int, divisor: int) -> str:
    below = max(n for n in range(1, total + 1) if total % n == 0 and n <= divisor)
    above = min((n for n in range(divisor, total + 1) if total % n == 0), default=below)
    nearest = f"{below}, {above}" if below != above else f"{below}"
    return f"{name}={total} is not divisible by it; nearest: {nearest}"

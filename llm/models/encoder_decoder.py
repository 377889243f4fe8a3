"""An encoder-decoder model put together from the parts of `Decoder`: T5 is a YAML file, not a class."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor, nn

from llm.models.base import Attention, FeedForward, Mask, Norm, Position, Sizes
from llm.models.block import Block, Placement
from llm.models.cache import KVCache
from llm.models.decoder import Decoder
from llm.models.initialisation import gpt2
from llm.models.masks import attention_mask, fixed_places, reading_mask
from llm.types import Batch, ConfigError

Count = Annotated[int, Field(gt=0)]


class EncoderDecoder(nn.Module):
    """An encoder that reads a source, and a decoder that writes a target while looking at what it read.

    Vaswani et al. 2017, "Attention Is All You Need", section 3.1; Raffel et al. 2020, "Exploring the Limits
    of Transfer Learning", section 2.1. Both stacks are built from the same parts, the encoder's with
    ``sizes.causal`` False; each has positions of its own; the token embeddings are shared.

    The decoder's tokens are the target moved one place on: it starts from `start_id`.

    Args:
        vocab_size: number of token ids.
        max_seq_len: longest source, and longest target, in tokens.
        d_model: width of the residual stream.
        n_layers: number of blocks of the decoder.
        n_heads: attention heads; divides `d_model`.
        attention: ``(sizes, rotate=) -> Attention``; also looks at the encoder's output, as `context`.
        feed_forward: ``(sizes) -> FeedForward``.
        position: ``(sizes) -> Position``.
        norm: ``(d_model, bias=) -> nn.Module``.
        n_encoder_layers: number of blocks of the encoder; None for `n_layers`.
        start_id: what the decoder reads first (T5: its padding's id).
        norm_placement: where a block has its norms; see `llm.models.block.Block`.
        head_dim: width of one head; None for ``d_model / n_heads``.
        scale_embeddings: whether token embeddings are multiplied by the root of `d_model` (Vaswani et al.
            2017, section 3.4).
        scale_head: whether the head reads the stream divided by the root of `d_model` (T5 v1.0, whose
            embeddings are tied and large).
        n_kv_heads: key and value heads, shared by several query heads when fewer; None for `n_heads`.
        d_ff: inner width of the feed-forward part; None for the part's own rule.
        dropout: on embeddings, attention weights and all parts' results, while training.
        bias: whether linear layers and norms carry biases; the head never does.
        tie_embeddings: whether the head scores with the token embeddings themselves.
        init_std: standard deviation of the first weights, where the initialisation asks for one.
        initialisation: sets the first weights: ``(model, generator, std=, n_layers=)``.

    Raises:
        ConfigError: sizes that do not fit together.
    """

    position: Position
    encoder_position: Position

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
        n_encoder_layers: Count | None = None,
        start_id: Annotated[int, Field(ge=0)] = 0,
        n_kv_heads: Count | None = None,
        head_dim: Count | None = None,
        d_ff: Count | None = None,
        norm_placement: Placement = "pre",
        scale_embeddings: bool = False,
        scale_head: bool = False,
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0,
        bias: bool = False,
        tie_embeddings: bool = True,
        init_std: Annotated[float, Field(gt=0)] = 0.02,
        initialisation: Callable[..., None] = gpt2,
    ) -> None:
        super().__init__()
        self.check_arguments(d_model=d_model, n_heads=n_heads, n_kv_heads=n_kv_heads, head_dim=head_dim)
        if start_id >= vocab_size:
            raise ConfigError("start_id", start_id, f"is no token: there are {vocab_size}")
        self.vocab_size, self.max_seq_len, self.start_id = vocab_size, max_seq_len, start_id
        self.dropout, self.init_std, self.initialisation = dropout, init_std, initialisation
        self.embedding_scale = math.sqrt(d_model) if scale_embeddings else 1.0
        self.head_scale = 1 / math.sqrt(d_model) if scale_head else 1.0

        def sizes(n: int, layer: int, *, causal: bool) -> Sizes:
            kv = n_kv_heads or n_heads
            numbers = (d_model, n, n_heads, kv, d_ff, max_seq_len, bias, dropout, layer, head_dim or 0)
            return Sizes(*numbers, causal=causal)

        def stack(n: int, where: Position, *, causal: bool) -> nn.ModuleList:
            blocks = []
            for layer in range(n):
                own = sizes(n, layer, causal=causal)
                block = Block(
                    attention=attention(own, rotate=where.rotate),
                    cross_attention=attention(own, rotate=where.rotate) if causal else None,
                    feed_forward=feed_forward(own),
                    norm=lambda: norm(d_model, bias=bias),
                    placement=norm_placement,
                    dropout=dropout,
                )
                blocks.append(block)
            return nn.ModuleList(blocks)

        n_read = n_encoder_layers or n_layers
        self.embedding = nn.Embedding(vocab_size, d_model)
        self.encoder_position = position(sizes(n_read, 0, causal=False))
        self.encoder_blocks = stack(n_read, self.encoder_position, causal=False)
        self.encoder_norm = norm(d_model, bias=bias)
        self.position = position(sizes(n_layers, 0, causal=True))
        self.blocks = stack(n_layers, self.position, causal=True)
        self.norm = norm(d_model, bias=bias)
        self.unembedding = None if tie_embeddings else nn.Linear(d_model, vocab_size, bias=False)

    @staticmethod
    def check_arguments(
        *, d_model: int, n_heads: int, n_kv_heads: int | None = None, head_dim: int | None = None
    ) -> None:
        """Refuses head counts that do not divide what they must."""
        Decoder.check_arguments(d_model=d_model, n_heads=n_heads, n_kv_heads=n_kv_heads, head_dim=head_dim)

    def encode(
        self, source: Int[Tensor, "B C"], padding: Bool[Tensor, "B C"] | None = None
    ) -> Float[Tensor, "B C D"]:
        """The normalised stream after the encoder's last block.

        Args:
            source: ids.
            padding: True where they are text, which may be padded on either side; None when all are.

        Raises:
            ConfigError: more tokens than `max_seq_len`.
        """
        n = source.shape[1]
        if padding is None:
            self._require_fit(n)
        positions = _places(padding, n, source.device)
        x = self._embedded(source, positions, self.encoder_position)
        allowed = None if padding is None else reading_mask(padding, n)
        mask = _biased(self.encoder_position.bias(0, n, source.device), allowed)
        for block in self.encoder_layers():
            x = block(x, positions=positions, mask=mask)
        normed: Tensor = self.encoder_norm(x)
        return normed

    def hidden(self, batch: Batch, cache: KVCache | None = None) -> Float[Tensor, "B T D"]:
        """The decoder's normalised stream after its last block.

        Args:
            batch: `source` is what the encoder reads, `tokens` what the decoder has written so far, from
                `start_id` on; `targets` are not read. With a `cache`, only the new tokens, while `padding`
                covers cached and new ones; the source comes with the first call and no other.
            cache: what earlier calls left; it is extended.

        Raises:
            ConfigError: no source, or more tokens than `max_seq_len`.
        """
        context, source_padding = self._context(batch, cache)
        n_new, positions = batch.tokens.shape[1], batch.positions
        rows = None if cache is None else cache.rows(n_new)
        mask: Mask | None
        if rows is not None and cache is not None:  # a static cache: its numbers are never asked for
            places, mask = fixed_places(rows, cache.capacity, batch.padding, self.position.bias)
        else:
            n_past = cache.length if cache is not None else 0
            if batch.padding is None and positions is None:
                self._require_fit(n_past + n_new)
            places = _places(batch.padding, n_past + n_new, batch.tokens.device)[:, n_past:]
            mask = self._mask(n_past, n_new, batch)
        positions = places if positions is None else positions
        x = self._embedded(batch.tokens, positions, self.position)
        crossing = None if source_padding is None else reading_mask(source_padding, n_new)
        for layer, block in enumerate(self.layers()):
            x = block(
                x,
                positions=positions,
                mask=mask,
                cache=None if cache is None else cache[layer],
                context=context,
                context_mask=crossing,
                context_cache=None if cache is None else cache.crossing(layer),
            )
        normed: Tensor = self.norm(x)
        return normed

    def _context(
        self, batch: Batch, cache: KVCache | None
    ) -> tuple[Float[Tensor, "B C D"], Bool[Tensor, "B C"] | None]:
        """The encoder's output and where it stands for text: made now, or in an earlier call."""
        if cache is not None and cache.context is not None:
            assert batch.source is None, "the source has been read already"
            return cache.context, cache.context_padding
        if batch.source is None:
            mend = "brings no source for the encoder to read; take data=span_corruption or data=seq2seq"
            raise ConfigError("data", "without pairs", mend)
        context = self.encode(batch.source, batch.source_padding)
        if cache is not None:
            cache.context, cache.context_padding = context, batch.source_padding
        return context, batch.source_padding

    def _embedded(
        self, ids: Int[Tensor, "B T"], positions: Int[Tensor, "#B T"], where: Position
    ) -> Float[Tensor, "B T D"]:
        x = self.embedding(ids)
        if self.embedding_scale != 1.0:
            x = x * torch.tensor(self.embedding_scale, dtype=x.dtype, device=x.device)
        x = where.embed(x, positions)
        return F.dropout(x, self.dropout, self.training) if self.dropout else x

    def _mask(self, n_past: int, n_new: int, batch: Batch) -> Mask | None:
        """Causal, without padding, with what the positions add to the scores."""
        device = batch.tokens.device
        bias = self.position.bias(n_past, n_new, device)
        return _biased(bias, attention_mask(n_past, n_new, batch.padding, device, needed=bias is not None))

    def _require_fit(self, n_tokens: int) -> None:
        if n_tokens > self.max_seq_len:
            mend = f"the model reads at most max_seq_len={self.max_seq_len} tokens; shorten the sequences"
            raise ConfigError("seq_len", n_tokens, mend)

    def layers(self) -> Iterator[Block]:
        """The decoder's `blocks`, by their type."""
        return cast("Iterator[Block]", iter(self.blocks))

    def encoder_layers(self) -> Iterator[Block]:
        """The encoder's, by their type."""
        return cast("Iterator[Block]", iter(self.encoder_blocks))

    def head(self, hidden: Float[Tensor, "*B D"]) -> Float[Tensor, "*B V"]:
        """Scores (logits) of every token id to come next."""
        stream = hidden if self.head_scale == 1.0 else hidden * self.head_scale
        return F.linear(stream, (self.unembedding or self.embedding).weight)

    def forward(self, batch: Batch, cache: KVCache | None = None) -> Float[Tensor, "B T V"]:
        """``head(hidden(batch, cache))``."""
        return self.head(self.hidden(batch, cache))

    @torch.no_grad()
    def init_weights(self, generator: torch.Generator) -> None:
        """Sets every parameter and buffer; see `llm.models.initialisation`."""
        self.initialisation(self, generator, std=self.init_std, n_layers=len(self.blocks))

    def parallel_plan(self) -> Mapping[str, str]:
        """What may be wrapped or split, by module name; see `Decoder.parallel_plan`."""
        plan = {}
        for stack, layers in (("blocks", self.layers()), ("encoder_blocks", self.encoder_layers())):
            for layer, block in enumerate(layers):
                plan[f"{stack}.{layer}"] = "block"
                for part in ("attention", "cross_attention", "feed_forward"):
                    module = getattr(block, part)
                    for name, style in ({} if module is None else module.parallel_plan()).items():
                        plan[f"{stack}.{layer}.{part}.{name}"] = style
        return plan

    def forward_flops(self, source_tokens: float, target_tokens: float) -> float:
        """Forward floating-point operations for one pair, counted as in `llm.models.accounting`.

        The matrix that a cross-attention reads both sides with counts on both.
        """
        reading = sum(
            _matrices(block) + block.attention.mixing_flops(source_tokens) for block in self.encoder_layers()
        )
        writing = 2.0 * self.vocab_size * self.embedding.embedding_dim
        for block in self.layers():
            assert block.cross_attention is not None
            crossing = cast(nn.Module, block.cross_attention)
            outward = {
                f"{name}.weight" for name, s in block.cross_attention.parallel_plan().items() if s == "row"
            }
            reading += sum(
                2.0 * p.numel()
                for name, p in crossing.named_parameters()
                if p.ndim == 2 and name not in outward
            )
            writing += _matrices(block) + block.attention.mixing_flops(target_tokens)
            writing += block.cross_attention.mixing_flops(source_tokens)
        return source_tokens * reading + target_tokens * writing


def _matrices(module: nn.Module) -> float:
    return sum(2.0 * m.weight.numel() for m in module.modules() if isinstance(m, nn.Linear))


def _places(padding: Bool[Tensor, "B S"] | None, n: int, device: torch.device) -> Int[Tensor, "#B S"]:
    """Places counted from each sequence's first token, past the padding on its left."""
    if padding is None:
        return torch.arange(n, device=device)[None]
    return (padding.long().cumsum(1) - 1).clamp(min=0)


def _biased(bias: Float[Tensor, "H T S"] | None, allowed: Bool[Tensor, "#B 1 T S"] | None) -> Mask | None:
    """What positions add to the scores, minus infinity where a token may not look."""
    if bias is None:
        return allowed
    return bias[None] if allowed is None else bias.masked_fill(~allowed, -torch.inf)

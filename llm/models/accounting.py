"""How many parameters a model has and how much work a token is, without running or allocating it."""

from __future__ import annotations

from torch import nn

from llm.models.decoder import Decoder
from llm.models.encoder_decoder import EncoderDecoder


def count_parameters(model: nn.Module) -> int:
    """Numbers that training changes or could change; a tensor used in two places counts once."""
    return sum(parameter.numel() for parameter in model.parameters())


def flops_per_token(model: Decoder | EncoderDecoder, context_tokens: float) -> float:
    """Forward floating-point operations for one token; training costs three times as much.

    Two for each weight of a matrix (a multiplication and an addition), the head's included, and what each
    attention needs to look at `context_tokens` (Kaplan et al. 2020, table 1). Norms, activations and
    look-ups are left out, as is usual: they are less than a hundredth.

    Args:
        model: may be on the meta device.
        context_tokens: tokens attended to: ``seq_len`` for what kernels without causal skipping compute and
            published numbers count, ``(seq_len + 1) / 2`` for what a causal model needs. Of an
            encoder-decoder model: the tokens of its source, and of its target; the mean over both is given.
    """
    if isinstance(model, EncoderDecoder):
        return model.forward_flops(context_tokens, context_tokens) / (2 * context_tokens)
    matrices = sum(2 * m.weight.numel() for m in model.modules() if isinstance(m, nn.Linear))
    if model.unembedding is None:
        matrices += 2 * model.embedding.weight.numel()
    mixing = sum(block.attention.mixing_flops(context_tokens) for block in model.layers())
    return float(matrices + mixing)

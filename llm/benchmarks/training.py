"""Our decoder's training step against transformers' LLaMA of the same shape."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from llm import runtime
from llm.benchmarks.base import alternate
from llm.models.decoder import Decoder
from llm.runs.run import Run
from llm.types import Batch, ConfigError

Count = Annotated[int, Field(gt=0)]


class TrainingStep:
    """Forward, backward and AdamW step on random tokens, ours and theirs in turn.

    Both have the same parameters and see the same batch; loss and optimizer are the same functions.

    Args:
        model: a LLaMA-shaped `model` component; the sizes below are passed to it.
        d_model: width, as are the further sizes: see `llm.models.decoder.Decoder`.
        n_layers: blocks.
        n_heads: attention heads.
        n_kv_heads: key and value heads.
        d_ff: inner width of the feed-forward part.
        vocab_size: token ids.
        seq_len: tokens in a sequence.
        batch_size: sequences in a step.
        n_steps: steps that are timed together.
        n_rounds: how often each side is timed.
    """

    def __init__(
        self,
        model: Callable[..., Decoder],
        d_model: Count = 256,
        n_layers: Count = 4,
        n_heads: Count = 4,
        n_kv_heads: Count = 2,
        d_ff: Count = 704,
        vocab_size: Count = 4096,
        seq_len: Count = 128,
        batch_size: Count = 8,
        n_steps: Count = 2,
        n_rounds: Count = 10,
        name: str = "training",
    ) -> None:
        self.model, self.name = model, name
        self.sizes = {
            "d_model": d_model,
            "n_layers": n_layers,
            "n_heads": n_heads,
            "n_kv_heads": n_kv_heads,
            "d_ff": d_ff,
            "vocab_size": vocab_size,
        }
        self.seq_len, self.batch_size = seq_len, batch_size
        self.n_steps, self.n_rounds = n_steps, n_rounds

    def measure(self, run: Run) -> dict[str, float]:
        """``ratio``: our seconds over theirs (below 1 is faster) with quartiles; tokens a second of both.

        Raises:
            ConfigError: transformers is not installed, or `model` is not of LLaMA's shape.
        """
        device = runtime.device()
        theirs = _llama(self.sizes, self.seq_len).to(device)
        ours = self.model(max_seq_len=self.seq_len, **self.sizes).to(device)
        generator = torch.Generator().manual_seed(run.seed)
        ours.init_weights(generator)
        n_params = sum(p.numel() for p in ours.parameters())
        if n_params != (n_theirs := sum(p.numel() for p in theirs.parameters())):
            mend = f"{n_params:,} parameters where LLaMA has {n_theirs:,}; use model@benchmark.model=llama"
            raise ConfigError("model", type(ours).__name__, mend)
        shape = (self.batch_size, self.seq_len + 1)
        ids = torch.randint(self.sizes["vocab_size"], shape, generator=generator).to(device)
        sides = {
            "ours": self._stepper(ours, lambda tokens: ours(Batch(tokens)), ids),
            "transformers": self._stepper(theirs, lambda tokens: theirs(input_ids=tokens).logits, ids),
        }
        with run.progress("training step", (self.n_rounds + 1) * 2, unit="rounds") as progress:
            timings = alternate(sides, n_rounds=self.n_rounds, advance=progress.advance)
        ratio, low, high = timings.ratio("ours", "transformers")
        n_tokens = self.batch_size * self.seq_len * self.n_steps
        run.log_table("timings", list(sides), list(zip(*timings.seconds.values(), strict=True)))
        return {
            "ratio": ratio,
            "ratio_low": low,
            "ratio_high": high,
            "tokens_per_second": n_tokens / timings.median("ours"),
            "transformers_tokens_per_second": n_tokens / timings.median("transformers"),
            "n_params": float(n_params),
        }

    def _stepper(
        self, model: nn.Module, logits: Callable[[Tensor], Tensor], ids: Tensor
    ) -> Callable[[], None]:
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
        model.train()

        def steps() -> None:
            for _ in range(self.n_steps):
                optimizer.zero_grad(set_to_none=True)
                loss = F.cross_entropy(logits(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
                torch.autograd.backward(loss)
                optimizer.step()
            if ids.is_cuda:
                torch.cuda.synchronize()  # else only the launches would be timed

        return steps


def _llama(sizes: dict[str, int], seq_len: int) -> Any:
    try:
        from transformers import LlamaConfig, LlamaForCausalLM
    except ImportError:
        mend = "needs the package transformers: pip install -e '.[hf]'"
        raise ConfigError("benchmark", "training", mend) from None
    config = LlamaConfig(
        vocab_size=sizes["vocab_size"],
        hidden_size=sizes["d_model"],
        intermediate_size=sizes["d_ff"],
        num_hidden_layers=sizes["n_layers"],
        num_attention_heads=sizes["n_heads"],
        num_key_value_heads=sizes["n_kv_heads"],
        max_position_embeddings=seq_len,
        tie_word_embeddings=False,
        use_cache=False,
    )
    return LlamaForCausalLM(config)

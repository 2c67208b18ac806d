"""LLaMA of transformers as a peer that trains: see torch_steps.py, and benchmarks/train_step.py, whose peer it is.

Needs torch and transformers, and nothing of this project.
"""

import pathlib

import torch  # pyright: ignore[reportMissingImports]
import transformers  # pyright: ignore[reportMissingImports]
from torch import nn  # pyright: ignore[reportMissingImports]
from torch_steps import Rows, serve  # peers/ is the script's own folder


class NextToken(nn.Module):
    """The mean loss of the next token of a causal model of transformers."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, rows: Rows) -> torch.Tensor:
        """The loss of `tokens`."""
        tokens = rows["tokens"]
        logits = self.model(input_ids=tokens[:, :-1].contiguous(), use_cache=False).logits
        return nn.functional.cross_entropy(logits.float().flatten(0, 1), tokens[:, 1:].reshape(-1))


def load(folder: pathlib.Path) -> NextToken:
    """The decoder of a folder."""
    return NextToken(
        transformers.LlamaForCausalLM.from_pretrained(
            folder, attn_implementation="sdpa", dtype=torch.float32
        )
    )


if __name__ == "__main__":
    serve(load)

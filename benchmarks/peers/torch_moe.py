"""The peer of benchmarks/moe_layer.py: Mixtral's block with GPT-2's MLPs as experts, in PyTorch on one thread.

    python torch_moe.py WEIGHTS.npz

Each line {"output": PATH or ""} of stdin runs a forward and backward pass, see answers.py; with a path the output is
written there. Needs torch and transformers, and nothing of this project.
"""

import sys
from collections.abc import Callable

import numpy as np
import torch  # pyright: ignore[reportMissingImports]
import transformers  # pyright: ignore[reportMissingImports]
from answers import Answer, answer  # peers/ is the script's own folder
from torch import nn  # pyright: ignore[reportMissingImports]
from transformers.models.gpt2.modeling_gpt2 import GPT2MLP  # pyright: ignore[reportMissingImports]
from transformers.models.mixtral.modeling_mixtral import (  # pyright: ignore[reportMissingImports]
    MixtralSparseMoeBlock,
)


class Experts(nn.Module):
    """GPT-2's MLPs; each computes the tokens that chose it, as Mixtral's own experts do."""

    def __init__(self, up: torch.Tensor, down: torch.Tensor) -> None:
        super().__init__()
        config = transformers.GPT2Config(n_embd=up.shape[1], resid_pdrop=0.0)
        self.experts = nn.ModuleList([GPT2MLP(up.shape[2], config) for _ in up])
        for expert, one, two in zip(self.experts, up, down):
            expert.c_fc.weight.data, expert.c_proj.weight.data = one, two

    def forward(self, x: torch.Tensor, chosen: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """The weighted sum over each token's experts."""
        y = torch.zeros_like(x)
        for number, expert in enumerate(self.experts):
            token, place = torch.where(chosen == number)
            y.index_add_(0, token, expert(x[token]) * weights[token, place, None])
        return y


def main() -> None:
    """Builds the block, then runs it for each line of stdin."""
    torch.set_num_threads(1)
    arrays = {name: torch.from_numpy(value) for name, value in np.load(sys.argv[1]).items()}
    width, count = arrays["gate"].shape
    config = transformers.MixtralConfig(
        hidden_size=width, intermediate_size=8, num_local_experts=count, num_experts_per_tok=2
    )
    block = MixtralSparseMoeBlock(config)
    block.gate.weight.data = arrays["gate"].T.contiguous()
    block.experts = Experts(arrays["up"], arrays["down"])
    x = arrays["x"].requires_grad_()

    def run(question: Answer) -> Callable[[], Answer]:
        block.zero_grad(set_to_none=True)
        x.grad = None
        y = block(x)
        y.square().sum().backward()

        def written() -> Answer:
            if path := question["output"]:
                np.save(path, y.detach().numpy())
            return {}

        return written

    answer(run)


if __name__ == "__main__":
    main()

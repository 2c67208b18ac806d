"""Writes fixtures/moe.npz with transformers' mixtures of experts: run it where torch and transformers are installed.

python tests/models/make_moe.py

Mixtral's block with GPT-2's MLPs as its experts, and Switch's with capacity and GELU: weights, inputs, outputs,
gradients of sum(y * g) by inputs and weights, and the auxiliary losses. Matrices are stored as this project has them:
(experts, inputs, outputs).
"""

import pathlib

import numpy as np
import torch
from torch import nn
from transformers import GPT2Config, MixtralConfig, SwitchTransformersConfig
from transformers.models.gpt2.modeling_gpt2 import GPT2MLP
from transformers.models.mixtral import modeling_mixtral as mixtral
from transformers.models.switch_transformers import modeling_switch_transformers as switch

B, T, D, F, E = 2, 12, 8, 16, 4
CAPACITY = 4  # of Switch's experts, for a row


class DenseExperts(nn.Module):
    """GPT-2's MLPs, called as Mixtral calls its experts: every expert computes every token."""

    def __init__(self) -> None:
        super().__init__()
        config = GPT2Config(n_embd=D, resid_pdrop=0.0, activation_function="gelu_new")
        self.all = nn.ModuleList([GPT2MLP(F, config) for _ in range(E)])

    def forward(self, x: torch.Tensor, chosen: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """Sums the chosen ones."""
        total = torch.zeros_like(x)
        for number, expert in enumerate(self.all):
            total = total + expert(x) * (weights * (chosen == number)).sum(-1, keepdim=True)
        return total


def stacked(tensors: list[torch.Tensor], transposed: bool = False) -> torch.Tensor:
    """Of all experts, (outputs, inputs) transposed."""
    return torch.stack([t.T if transposed else t for t in tensors])


def of_mixtral() -> tuple[nn.Module, list[torch.Tensor], dict]:
    """The block, its parameters, and how they are stacked."""
    config = MixtralConfig(hidden_size=D, num_local_experts=E, num_experts_per_tok=2)
    block = mixtral.MixtralSparseMoeBlock(config)
    block.experts = DenseExperts()
    experts = list(block.experts.all)
    return (
        block,
        list(block.parameters()),
        {
            "gate": lambda of: of(block.gate.weight).T,
            "up": lambda of: stacked([of(e.c_fc.weight) for e in experts]),
            "up_bias": lambda of: stacked([of(e.c_fc.bias) for e in experts]),
            "down": lambda of: stacked([of(e.c_proj.weight) for e in experts]),
            "down_bias": lambda of: stacked([of(e.c_proj.bias) for e in experts]),
        },
    )


def of_switch() -> tuple[nn.Module, list[torch.Tensor], dict]:
    """The same of Switch, whose experts have no biases."""
    config = SwitchTransformersConfig(
        d_model=D,
        d_ff=F,
        num_experts=E,
        expert_capacity=CAPACITY,
        dense_act_fn="gelu_new",
        dropout_rate=0.0,
        router_bias=False,
        router_jitter_noise=0.0,
    )
    block = switch.SwitchTransformersSparseMLP(config)
    experts = [block.experts[f"expert_{i}"] for i in range(E)]
    return (
        block,
        list(block.parameters()),
        {
            "gate": lambda of: of(block.router.classifier.weight).T,
            "up": lambda of: stacked([of(e.wi.weight) for e in experts], transposed=True),
            "down": lambda of: stacked([of(e.wo.weight) for e in experts], transposed=True),
        },
    )


def run(name: str, found: tuple[nn.Module, list[torch.Tensor], dict]) -> dict[str, np.ndarray]:
    """All arrays of one block."""
    block, parameters, arrays = found
    torch.manual_seed(7)
    for parameter in parameters:
        parameter.data = 0.7 * torch.randn_like(parameter)
    x = torch.randn(B, T, D, requires_grad=True)
    g = torch.randn(B, T, D)
    y = block(x)
    (y * g).sum().backward()
    out = {"x": x, "g": g, "y": y, "dx": x.grad}
    for key, stack in arrays.items():
        out[key] = stack(lambda p: p)
        out[f"d{key}"] = stack(lambda p: p.grad)
    return {f"{name}/{key}": value.detach().numpy() for key, value in out.items()}


def losses(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Auxiliary losses of both conventions, on the logits of their own block."""
    logits = {
        name: torch.tensor(arrays[f"{name}/x"] @ arrays[f"{name}/gate"])
        for name in ("mixtral", "switch")
    }
    flat = logits["mixtral"].reshape(-1, E)
    # Switch averages over rows of their own products of means, so that it gets all tokens as one row here.
    probabilities = torch.softmax(logits["switch"].reshape(1, -1, E), dim=-1)
    return {
        "mixtral/balance": mixtral.load_balancing_loss_func((flat,), E, 2).numpy(),
        "switch/balance": switch.load_balancing_loss_func(
            probabilities, torch.argmax(probabilities, dim=-1)
        ).numpy(),
        "switch/z": switch.router_z_loss_func(logits["switch"]).numpy(),
    }


def main() -> None:
    """Writes the fixture."""
    arrays = run("mixtral", of_mixtral()) | run("switch", of_switch())
    arrays |= losses(arrays)
    folder = pathlib.Path(__file__).parent / "fixtures"
    folder.mkdir(exist_ok=True)
    np.savez_compressed(folder / "moe.npz", **arrays)


if __name__ == "__main__":
    main()

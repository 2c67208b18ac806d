"""GPT-2 with Mixtral's block in every second layer as a peer that trains: see torch_steps.py.

It is the peer of benchmarks/unified_step.py. The folder is our decoder's, with its parameters by their dotted paths.
Experts are GPT-2's MLPs, two a token. Needs torch and transformers, and nothing of this project.
"""

import json
import pathlib

import torch  # pyright: ignore[reportMissingImports]
import transformers  # pyright: ignore[reportMissingImports]
from safetensors.torch import load_file  # pyright: ignore[reportMissingImports]
from torch import nn  # pyright: ignore[reportMissingImports]
from torch_llama import NextToken  # peers/ is the script's own folder
from torch_moe import Experts
from torch_steps import serve
from transformers.models.mixtral.modeling_mixtral import (  # pyright: ignore[reportMissingImports]
    MixtralSparseMoeBlock,
)

Arrays = dict[str, torch.Tensor]
PERIOD = 2  # a dense block, then one with experts
EPS = 1e-12


def fill(module: nn.Module, weight: torch.Tensor, bias: torch.Tensor) -> None:
    """Sets a layer's two parameters."""
    module.weight = nn.Parameter(weight.contiguous())
    module.bias = nn.Parameter(bias.contiguous())


def mixture(block: Arrays) -> MixtralSparseMoeBlock:
    """Mixtral's block with the router and the experts of ours."""
    width, count = block["mlp.router.gate"].shape
    config = transformers.MixtralConfig(
        hidden_size=width, intermediate_size=8, num_local_experts=count, num_experts_per_tok=2
    )
    made = MixtralSparseMoeBlock(config)
    made.gate.weight = nn.Parameter(block["mlp.router.gate"].T.contiguous())
    made.experts = Experts(block["mlp.up"].clone(), block["mlp.down"].clone())
    biases = block["mlp.up_bias"].view(count, -1), block["mlp.down_bias"].view(count, -1)
    for expert, up, down in zip(made.experts.experts, *biases):
        expert.c_fc.bias, expert.c_proj.bias = nn.Parameter(up.clone()), nn.Parameter(down.clone())
    return made


def build(arrays: Arrays, vocab_size: int, heads: int) -> nn.Module:
    """GPT2LMHeadModel with our parameters; our table has rows behind the last id."""
    layers = PERIOD * len(arrays["layers.places.0.mlp.up"])
    width = arrays["embedding"].shape[1]
    config = transformers.GPT2Config(
        vocab_size=vocab_size,
        bos_token_id=0,
        eos_token_id=0,
        n_positions=len(arrays["positions.table"]),
        n_embd=width,
        n_layer=layers,
        n_head=heads,
        n_inner=arrays["layers.places.0.mlp.up"].shape[-1],
        layer_norm_epsilon=EPS,
        **dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0),
        attn_implementation="sdpa",
    )
    model = transformers.GPT2LMHeadModel(config)
    model.transformer.wte.weight.data.copy_(arrays["embedding"][:vocab_size])
    model.transformer.wpe.weight.data.copy_(arrays["positions.table"])
    fill(model.transformer.ln_f, arrays["norm.scale"], arrays["norm.bias"])
    for number, layer in enumerate(model.transformer.h):
        prefix = f"layers.places.{number % PERIOD}."
        block = {
            name.removeprefix(prefix): array[number // PERIOD].clone()
            for name, array in arrays.items()
            if name.startswith(prefix)
        }
        parts = ("attention.query", "attention.key", "attention.value")
        weight = torch.cat([block[name].reshape(width, -1) for name in parts], dim=1)
        fill(layer.attn.c_attn, weight, torch.cat([block[f"{name}_bias"] for name in parts]))
        out = block["attention.out"].reshape(-1, width)
        fill(layer.attn.c_proj, out, block["attention.out_bias"])
        fill(layer.ln_1, block["attention_norm.scale"], block["attention_norm.bias"])
        fill(layer.ln_2, block["mlp_norm.scale"], block["mlp_norm.bias"])
        if "mlp.router.gate" in block:
            layer.mlp = mixture(block)
        else:
            fill(layer.mlp.c_fc, block["mlp.up"], block["mlp.up_bias"])
            fill(layer.mlp.c_proj, block["mlp.down"], block["mlp.down_bias"])
    return model


def load(folder: pathlib.Path) -> NextToken:
    """The decoder of a folder of ours."""
    config = json.loads((folder / "config.json").read_text())["decoder"]
    sizes = config["vocab_size"], config["num_attention_heads"]
    return NextToken(build(load_file(folder / "model.safetensors"), *sizes))


if __name__ == "__main__":
    serve(load)

"""Writes fixtures/hf_opt.npz and fixtures/hf_gpt2.npz with transformers' own models: run it where torch and
transformers are installed.

python tests/weights/make_hf_decoders.py

A fixture holds config.json, the tensors, and the logits of two rows: whole, right-padded and left-padded.
"""

import pathlib
import tempfile

import numpy as np
import torch
import transformers
from safetensors.numpy import load_file

FIXTURES = pathlib.Path(__file__).parent / "fixtures"
LENGTHS = (20, 13)  # tokens of the two rows that count; 20 are stored
SHAPE = {"vocab_size": 50, "bos_token_id": 2, "eos_token_id": 2, "pad_token_id": 1}
OPT = {
    **SHAPE,
    "hidden_size": 24,
    "word_embed_proj_dim": 24,
    "ffn_dim": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 26,
    "init_std": 0.2,  # wide, so that attention is far from uniform
}
GPT2 = {
    **SHAPE,
    "n_embd": 24,
    "n_layer": 3,
    "n_head": 4,
    "n_positions": 26,
    "initializer_range": 0.2,
    "layer_norm_epsilon": 1e-12,
}
MODELS = {
    "opt": (transformers.OPTConfig(**OPT), transformers.OPTForCausalLM),
    "gpt2": (transformers.GPT2Config(**GPT2), transformers.GPT2LMHeadModel),
}


def padded(tokens: torch.Tensor, left: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of the first LENGTHS tokens with padding (id 1) on one side, and their mask."""
    rows, masks = torch.ones_like(tokens), torch.zeros_like(tokens)
    for i, length in enumerate(LENGTHS):
        where = slice(tokens.shape[1] - length, None) if left else slice(0, length)
        rows[i, where], masks[i, where] = tokens[i, :length], 1
    return rows, masks


def make(config: transformers.PretrainedConfig, kind: type) -> dict:
    """config.json, tokens, logits and tensors of a random model."""
    torch.manual_seed(0)
    model = kind(config).eval()
    for parameter in model.parameters():
        # Norms start at 1 and biases at 0, which hides one that is not loaded.
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, 0.5, 0.3)
    tokens = torch.randint(3, config.vocab_size, (2, max(LENGTHS)))
    fixture = {"tokens": tokens}
    with torch.no_grad():
        fixture["logits"] = model(tokens).logits
        for side in ("right", "left"):
            rows, mask = padded(tokens, side == "left")
            # OPT counts positions from the mask; GPT-2 does so in `generate` only, and is told here.
            positions = (mask.cumsum(-1) - 1).clamp(min=0)
            extra = {} if config.model_type == "opt" else {"position_ids": positions}
            logits = model(rows, attention_mask=mask, **extra).logits
            fixture |= {f"{side}_tokens": rows, f"{side}_mask": mask, f"{side}_logits": logits}
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        config_json = pathlib.Path(folder, "config.json").read_text()
        tensors = load_file(pathlib.Path(folder, "model.safetensors"))
    return {"config": config_json, **fixture, **tensors}


def main() -> None:
    for name, (config, kind) in MODELS.items():
        np.savez_compressed(FIXTURES / f"hf_{name}.npz", **make(config, kind))


if __name__ == "__main__":
    main()

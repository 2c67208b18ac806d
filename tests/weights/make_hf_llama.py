"""Writes fixtures/hf_*.npz and fixtures/hf_llama_bin with transformers' own models: run it where torch and
transformers are installed.

python tests/weights/make_hf_llama.py
"""

import json
import pathlib
import tempfile

import numpy as np
import torch
import transformers
from safetensors.numpy import load_file

FIXTURES = pathlib.Path(__file__).parent / "fixtures"
SHAPE = {
    "vocab_size": 116,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "rms_norm_eps": 1e-6,
    "initializer_range": 0.2,  # wide, so that attention is far from uniform
    "bos_token_id": 1,
    "eos_token_id": 2,
}
SMALL = {**SHAPE, "vocab_size": 40, "hidden_size": 24, "num_key_value_heads": 2}
# Wavelengths from 6 to 350 tokens: left alone, in between, and stretched in full.
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 100.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
LINEAR_ROPE = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0}
MODELS = {
    "llama_mha": ("Llama", {**SHAPE, "num_key_value_heads": 4}),
    "llama_gqa": ("Llama", {**SHAPE, "num_key_value_heads": 2}),
    "llama3": (
        "Llama",
        {**SMALL, "head_dim": 16, "rope_parameters": LLAMA3_ROPE, "tie_word_embeddings": True},
    ),
    "llama_linear": ("Llama", {**SMALL, "rope_parameters": LINEAR_ROPE, "rms_norm_eps": 1e-5}),
    "qwen2": ("Qwen2", {**SMALL, "rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}),
    "qwen3": ("Qwen3", {**SMALL, "head_dim": 8}),
}


def make(kind: str, fields: dict) -> dict:
    """config.json, tokens, logits and tensors of a random model."""
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**fields)
    model = getattr(transformers, f"{kind}ForCausalLM")(config)
    for parameter in model.parameters():
        if (
            parameter.ndim == 1
        ):  # norms start at 1 and biases at 0, which hides one that is not loaded
            torch.nn.init.normal_(parameter, 1.0, 0.2)
    tokens = torch.randint(0, config.vocab_size, (2, 24))
    with torch.no_grad():
        logits = model(tokens).logits
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        config_json = pathlib.Path(folder, "config.json").read_text()
        tensors = load_file(pathlib.Path(folder, "model.safetensors"))
    return {"config": config_json, "tokens": tokens, "logits": logits, **tensors}


def save_as_bin(fixture: dict, folder: pathlib.Path) -> None:
    """The older layout: several files of torch.save and their index, in half precision."""
    folder.mkdir(exist_ok=True)
    names = [name for name in fixture if name.endswith(".weight")]
    files = {f"pytorch_model-0000{i + 1}-of-00002.bin": names[i::2] for i in range(2)}
    for file, part in files.items():
        tensors = {name: torch.from_numpy(fixture[name]).to(torch.bfloat16) for name in part}
        torch.save(tensors, folder / file)
    weight_map = {name: file for file, part in files.items() for name in part}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (folder / "config.json").write_text(fixture["config"])


def main() -> None:
    for name, (kind, fields) in MODELS.items():
        fixture = make(kind, fields)
        np.savez_compressed(FIXTURES / f"hf_{name}.npz", **fixture)
        if name == "llama_linear":
            save_as_bin(fixture, FIXTURES / "hf_llama_bin")


if __name__ == "__main__":
    main()

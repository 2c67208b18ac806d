"""Writes fixtures/hf_llama_*.npz with transformers' own LLaMA: run it where torch and transformers are installed.

python tests/interop/make_hf_llama.py
"""

import pathlib
import tempfile

import numpy as np
import torch
import transformers
from safetensors.numpy import load_file


def main() -> None:
    for name, kv_heads in (("mha", 4), ("gqa", 2)):
        torch.manual_seed(0)
        config = transformers.LlamaConfig(
            vocab_size=116,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=kv_heads,
            rms_norm_eps=1e-6,
            initializer_range=0.2,  # wide, so that attention is far from uniform
            bos_token_id=1,
            eos_token_id=2,
        )
        model = transformers.LlamaForCausalLM(config)
        for parameter in model.parameters():
            if parameter.ndim == 1:  # norms start at 1, which hides a norm that is not loaded
                torch.nn.init.normal_(parameter, 1.0, 0.2)
        tokens = torch.randint(0, 116, (2, 24))
        with torch.no_grad():
            logits = model(tokens).logits
        with tempfile.TemporaryDirectory() as folder:
            model.save_pretrained(folder)
            config_json = pathlib.Path(folder, "config.json").read_text()
            tensors = load_file(pathlib.Path(folder, "model.safetensors"))
        target = pathlib.Path(__file__).parent / "fixtures" / f"hf_llama_{name}.npz"
        np.savez_compressed(target, config=config_json, tokens=tokens, logits=logits, **tensors)


if __name__ == "__main__":
    main()

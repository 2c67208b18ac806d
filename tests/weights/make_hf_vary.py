"""Writes fixtures/vary_tiny.npz, vary_base.npz and got_ocr2_logits.npz with transformers' own models: run it where
torch and transformers are installed, after make_hf_towers.py.

python tests/weights/make_hf_vary.py

The first two hold config.json and the tensors by the names of Vary's authors, rows, pictures, the logits and loss of
the halves composed in PyTorch, and under "gradient/" the loss's gradient for each trained tensor. The third holds rows,
pictures and logits of the model in hf_got_ocr2.npz.
"""

import json
import pathlib
import re
import tempfile

import numpy as np
import torch
import transformers
from make_hf_towers import FIXTURES, TOWER, randomise
from safetensors.numpy import save_file
from torch import nn

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
PATCH, START, END = 20, 21, 22
TOKENS = 4  # of a picture
# End of text, picture, a question or nothing, an answer, end of text; the second row is padded.
ROWS = torch.tensor(
    [
        [2, START, *[PATCH] * TOKENS, END, 4, 7, 9, 11, 6, 2],
        [2, START, *[PATCH] * TOKENS, END, 4, 13, 5, 2, 1, 1],
    ]
)
LEARNT = torch.tensor([[0] * 8 + [1] * 5, [0] * 8 + [1] * 3 + [0] * 2])


def normalised(images: torch.Tensor, colours: tuple) -> torch.Tensor:
    """uint8 (B, H, W, 3) as a tower of PyTorch takes them."""
    mean, deviation = (torch.tensor(x)[None, :, None, None] for x in colours)
    return (images.permute(0, 3, 1, 2) / 255 - mean) / deviation


def drawn(side: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (2, side, side, 3), generator=generator, dtype=torch.uint8)


class Tower(nn.Module):
    """SAM's image encoder and two convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.sam = transformers.SamVisionModel(transformers.SamVisionConfig(**TOWER))
        self.net_2 = nn.Conv2d(8, 16, 3, stride=2, padding=1, bias=False)
        self.net_3 = nn.Conv2d(16, 20, 3, stride=2, padding=1, bias=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.sam(normalised(images, IMAGENET)).last_hidden_state
        return self.net_3(self.net_2(features)).flatten(2).permute(0, 2, 1)


def sam_name(name: str) -> str:
    """A tensor of `Tower` by the name of SAM's authors."""
    name = name.removeprefix("sam.vision_encoder.")
    name = name.replace("patch_embed.projection", "patch_embed.proj")
    name = re.sub(r"^layers\.(\d+)\.layer_norm", r"blocks.\1.norm", name)
    name = re.sub(r"^layers\.", "blocks.", name)
    for theirs, number in (("conv1", 0), ("layer_norm1", 1), ("conv2", 2), ("layer_norm2", 3)):
        name = name.replace(f"neck.{theirs}.", f"neck.{number}.")
    return name


def placed(embeddings: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Rows of the vocabulary with the picture's tokens behind the first two."""
    return torch.cat([embeddings[:, :2], tokens, embeddings[:, 2 + TOKENS :]], dim=1)


def scored(decoder: nn.Module, embeddings: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits, and the mean loss of what is learnt."""
    mask = (ROWS != 1).long()
    logits = decoder(inputs_embeds=embeddings, attention_mask=mask).logits
    labels = torch.where(LEARNT > 0, ROWS, -100)[:, 1:]
    loss = nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels.flatten())
    return logits, loss


def fixture(config: dict, tensors: dict, images: dict, logits: torch.Tensor, loss: torch.Tensor):
    """`tensors`: their name -> the parameter."""
    loss.backward()
    given = {"tokens": ROWS, "loss_weights": LEARNT.float(), "logits": logits.detach()}
    gradients = {f"gradient/{n}": p.grad for n, p in tensors.items() if p.grad is not None}
    values = {name: parameter.detach() for name, parameter in tensors.items()}
    return {
        "config": json.dumps(config),
        "loss": loss.detach(),
        **given,
        **images,
        **gradients,
        **values,
    }


def tiny() -> dict:
    """Vary-tiny: the tower, a linear layer, OPT; all is trained."""
    config = transformers.OPTConfig(
        vocab_size=24,
        hidden_size=12,
        ffn_dim=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=16,
        word_embed_proj_dim=12,
        dropout=0.0,
    )
    opt = transformers.OPTForCausalLM(config)
    tower, linear = Tower(), nn.Linear(20, 12)
    for module in (opt, tower, linear):
        randomise(module)
    images = drawn(48, 0)
    rows = placed(opt.get_input_embeddings()(ROWS), linear(tower(images)))
    logits, loss = scored(opt, rows)
    tensors = dict(opt.named_parameters())
    tensors |= {
        f"model.vision_tower.{sam_name(name)}": parameter
        for name, parameter in tower.named_parameters()
    }
    tensors |= {f"model.mm_projector.{name}": p for name, p in linear.named_parameters()}
    return fixture(_config(config), tensors, {"images": images}, logits, loss)


def base() -> dict:
    """Vary-base: CLIP and the tower frozen, a linear layer each, the first Qwen, which is Qwen2 by other names."""
    config = transformers.Qwen2Config(
        vocab_size=24,
        hidden_size=16,
        intermediate_size=12,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=32,
        tie_word_embeddings=False,
    )
    qwen = transformers.Qwen2ForCausalLM(config)
    sizes = {"hidden_size": 64, "intermediate_size": 16, "num_hidden_layers": 2}
    sizes |= {"num_attention_heads": 1, "image_size": 16, "patch_size": 8}
    clip = transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**sizes))
    tower, linear, linear_vary = Tower(), nn.Linear(64, 8), nn.Linear(20, 8)
    for module in (qwen, clip, tower, linear, linear_vary):
        randomise(module)
    images, small = drawn(48, 0), drawn(16, 1)
    with torch.no_grad():
        output = clip(normalised(small, CLIP), output_hidden_states=True)
        old, new = output.hidden_states[-2][:, 1:], tower(images)
    tokens = torch.cat([linear(old), linear_vary(new)], dim=-1)
    logits, loss = scored(qwen, placed(qwen.get_input_embeddings()(ROWS), tokens))
    loss.backward(retain_graph=True)
    tensors, gradients = _as_qwen(qwen)
    for parameter in qwen.parameters():
        parameter.grad = None
    for module in (linear, linear_vary):
        module.zero_grad()
    for name, module in (("", linear), ("_vary", linear_vary)):
        tensors |= {f"transformer.mm_projector{name}.{n}": p for n, p in module.named_parameters()}
    tensors |= {
        f"transformer.vision_tower_high.{sam_name(n)}": p for n, p in tower.named_parameters()
    }
    tensors |= {
        f"transformer.vision_tower.vision_model.{n.removeprefix('vision_model.')}": p
        for n, p in clip.named_parameters()
    }
    settings = {
        "model_type": "vary",
        "vocab_size": 24,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "kv_channels": 8,
        "layer_norm_epsilon": 1e-6,
        "rotary_emb_base": 10000,
        "rotary_pct": 1.0,
        "no_bias": True,
        "seq_length": 32,
        "use_dynamic_ntk": True,
        "use_logn_attn": True,
        "tie_word_embeddings": False,
        "bos_token_id": 2,
        "eos_token_id": 2,
        "pad_token_id": 1,
        "image_token_len": TOKENS,
        **_IDS,
    }
    shown = {"images": images, "images_clip": small}
    return fixture(settings, tensors, shown, logits, loss) | gradients


_IDS = {"im_patch_token": PATCH, "im_start_token": START, "im_end_token": END}


def _config(config: transformers.PretrainedConfig) -> dict:
    settings = {name: value for name, value in config.to_dict().items() if value is not None}
    return settings | {"model_type": "vary", "use_im_start_end": True, **_IDS}


def _as_qwen(model: nn.Module) -> tuple[dict, dict]:
    """Tensors of the first Qwen and their gradients, from Qwen2's."""
    theirs = {n: p.detach() for n, p in model.named_parameters()}
    grads = {n: p.grad.clone() for n, p in model.named_parameters()}

    def renamed(values: dict) -> dict:
        found = {
            "transformer.wte.weight": values["model.embed_tokens.weight"],
            "transformer.ln_f.weight": values["model.norm.weight"],
            "lm_head.weight": values["lm_head.weight"],
        }
        for i in range(model.config.num_hidden_layers):
            a, b = f"model.layers.{i}.", f"transformer.h.{i}."
            for kind in ("weight", "bias"):
                found[f"{b}attn.c_attn.{kind}"] = torch.cat(
                    [values[f"{a}self_attn.{x}_proj.{kind}"] for x in "qkv"]
                )
            for old, new in (
                ("self_attn.o_proj", "attn.c_proj"),
                ("input_layernorm", "ln_1"),
                ("post_attention_layernorm", "ln_2"),
                ("mlp.up_proj", "mlp.w1"),
                ("mlp.gate_proj", "mlp.w2"),
                ("mlp.down_proj", "mlp.c_proj"),
            ):
                found[f"{b}{new}.weight"] = values[f"{a}{old}.weight"]
        return found

    tensors = {name: nn.Parameter(value) for name, value in renamed(theirs).items()}
    return tensors, {f"gradient/{name}": value for name, value in renamed(grads).items()}


def got() -> dict:
    """Logits of GOT-OCR2."""
    with np.load(FIXTURES / "hf_got_ocr2.npz") as data:
        arrays = dict(data)
    beside = ("config", "images", "result", "weights")
    tensors = {
        name: array
        for name, array in arrays.items()
        if name not in beside and not name.startswith("gradient/")
    }
    with tempfile.TemporaryDirectory() as folder:
        settings = json.loads(str(arrays["config"]))
        pathlib.Path(folder, "config.json").write_text(json.dumps(settings))
        save_file(tensors, pathlib.Path(folder, "model.safetensors"), metadata={"format": "pt"})
        model = transformers.GotOcr2ForConditionalGeneration.from_pretrained(folder)
    patch = settings["image_token_index"]
    rows = torch.tensor([[7, patch - 2, *[patch] * TOKENS, patch - 1, 9, 4, 11]] * 2)
    images = drawn(48, 2)
    with torch.no_grad():
        logits = model(input_ids=rows, pixel_values=normalised(images, CLIP)).logits
    return {"tokens": rows, "images": images, "logits": logits}


def main() -> None:
    for name, make in (("vary_tiny", tiny), ("vary_base", base), ("got_ocr2_logits", got)):
        np.savez_compressed(FIXTURES / f"{name}.npz", **make())


if __name__ == "__main__":
    main()

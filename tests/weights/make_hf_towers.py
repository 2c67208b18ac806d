"""Writes fixtures/hf_sam_vision.npz, hf_got_ocr2.npz and hf_clip_vision.npz with transformers' own models: run it where
torch and transformers are installed.

python tests/weights/make_hf_towers.py

A fixture holds config.json, the tensors as transformers saves them, images, what the tower makes of them, and under
"gradient/" the gradient of sum(result * weights) for each tensor of the tower.
"""

import pathlib
import tempfile

import numpy as np
import torch
import transformers
from safetensors.numpy import load_file

FIXTURES = pathlib.Path(__file__).parent / "fixtures"
# Windows of 4 on a grid of 6 x 6: all but one of four windows are padded.
TOWER = {
    "hidden_size": 16,
    "output_channels": 8,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "image_size": 48,
    "patch_size": 8,
    "window_size": 4,
    "global_attn_indexes": [1, 3],
    "mlp_dim": 24,
}
TEXT = {
    "model_type": "qwen2",
    "vocab_size": 20,
    "hidden_size": 12,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
}
CLIP = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 24,
    "patch_size": 8,
}


def randomise(model: torch.nn.Module) -> None:
    """Wide weights, so that attention is far from uniform, and no zeros, which hide a tensor that is not loaded."""
    torch.manual_seed(0)
    for parameter in model.parameters():
        with torch.no_grad():
            if parameter.ndim == 1:
                parameter.normal_(0.5, 0.3)
            else:
                parameter.normal_(0.0, 0.25)


def finish(
    model: transformers.PreTrainedModel,
    images: torch.Tensor,
    result: torch.Tensor,
    beside: dict[str, torch.nn.Parameter] | None = None,
) -> dict:
    """The fixture of a model, from the result of its tower; `beside`: further parameters."""
    beside = beside or {}
    weights = torch.randn(result.shape)
    (result * weights).sum().backward()
    gradients = {
        f"gradient/{name}": parameter.grad
        for name, parameter in (*model.named_parameters(), *beside.items())
        if parameter.grad is not None
    }
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        config_json = pathlib.Path(folder, "config.json").read_text()
        tensors = load_file(pathlib.Path(folder, "model.safetensors"))
    given = {"images": images.permute(0, 2, 3, 1), "result": result.detach(), "weights": weights}
    tensors |= {name: parameter.detach() for name, parameter in beside.items()}
    return {"config": config_json, **given, **gradients, **tensors}


def sam() -> dict:
    """SAM's image encoder and two convolutions behind it: tokens, and the encoder's own output with channels last."""
    model = transformers.SamVisionModel(transformers.SamVisionConfig(**TOWER))
    convs = torch.nn.ModuleList(
        torch.nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False)
        for inputs, outputs in ((8, 16), (16, 20))
    )
    randomise(model)
    images = torch.randn(2, 3, 48, 48)
    features = model(images).last_hidden_state
    tokens = convs[1](convs[0](features)).flatten(2).permute(0, 2, 1)
    beside = {"net_2.weight": convs[0].weight, "net_3.weight": convs[1].weight}
    fixture = finish(model, images, tokens, beside)
    return fixture | {"features": features.detach().permute(0, 2, 3, 1)}


def got() -> dict:
    """GOT-OCR2's tower with its two convolutions and its projector, before a small Qwen2."""
    config = transformers.GotOcr2Config(vision_config=TOWER, text_config=TEXT, image_token_index=3)
    model = transformers.GotOcr2ForConditionalGeneration(config)
    randomise(model)
    images = torch.randn(2, 3, 48, 48)
    features = model.model.vision_tower(images).last_hidden_state
    return finish(model, images, model.model.multi_modal_projector(features))


def clip() -> dict:
    """CLIP's vision tower: the output of the last block but one, without CLS. The last norm has no gradient."""
    model = transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**CLIP))
    randomise(model)
    images = torch.randn(2, 3, 24, 24)
    output = model(images, output_hidden_states=True)
    fixture = finish(model, images, output.hidden_states[-2][:, 1:])
    with torch.no_grad():
        fixture["pooled"] = model(images).pooler_output
    return fixture


def main() -> None:
    for name, make in (("sam_vision", sam), ("got_ocr2", got), ("clip_vision", clip)):
        np.savez_compressed(FIXTURES / f"hf_{name}.npz", **make())


if __name__ == "__main__":
    main()

"""Writes fixtures/hf_vit_mae.npz and hf_seggpt.npz with transformers' own models: run it where torch and transformers
are installed.

python tests/weights/make_hf_canvas.py

A fixture holds config.json, the tensors as transformers saves them, what goes in, what comes out, the loss, and under
"gradient/" the loss's gradient for each tensor.
"""

import copy
import pathlib
import tempfile

import numpy as np
import torch
import transformers
from make_hf_towers import FIXTURES, randomise
from safetensors.numpy import load_file
from transformers.models.vit_mae.modeling_vit_mae import build_2d_sinusoidal_position_embedding

MAE = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "decoder_hidden_size": 12,
    "decoder_intermediate_size": 20,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 4,
    "layer_norm_eps": 1e-6,
    "mask_ratio": 0.75,
}
CODES = 9
# A grid of 6 x 3, and learned positions of 4 x 4, which have to be interpolated along both sides.
SEGGPT = {
    "hidden_size": 12,
    "mlp_dim": 20,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": (24, 12),
    "patch_size": 4,
    "pretrain_image_size": 16,
    "merge_index": 1,
    "intermediate_hidden_state_indices": (1, 2),
    "decoder_hidden_size": 6,
}


def saved(model: transformers.PreTrainedModel) -> tuple[str, dict]:
    """config.json, and the tensors by their names on disk, which are not those in memory."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        config_json = pathlib.Path(folder, "config.json").read_text()
        return config_json, load_file(pathlib.Path(folder, "model.safetensors"))


def finish(model: transformers.PreTrainedModel, loss: torch.Tensor, given: dict) -> dict:
    """The fixture of a model, from a loss of its."""
    loss.backward()
    gradients = copy.deepcopy(model)
    for target, parameter in zip(gradients.parameters(), model.parameters(), strict=True):
        found = parameter.grad
        target.data = torch.zeros_like(parameter) if found is None else found
    config_json, tensors = saved(model)
    by_name = {f"gradient/{name}": array for name, array in saved(gradients)[1].items()}
    given = {name: array.detach().numpy() for name, array in given.items()}
    return {"config": config_json, "loss": loss.item(), **given, **by_name, **tensors}


def vit_mae() -> dict:
    """A masked autoencoder with a head over codes: cross-entropy of the hidden patches."""
    model = transformers.ViTMAEForPreTraining(transformers.ViTMAEConfig(**MAE))
    model.decoder.decoder_pred = torch.nn.Linear(MAE["decoder_hidden_size"], CODES)
    randomise(model)
    with torch.no_grad():
        for place in (model.vit.embeddings.position_embeddings, model.decoder.decoder_pos_embed):
            rows, columns = build_2d_sinusoidal_position_embedding(
                4, 4, place.shape[-1], cls_token=True
            ).chunk(2, dim=1)
            place.copy_(torch.cat([columns, rows], dim=1))  # as its weights have them
    canvas, noise = torch.randn(2, 3, 16, 16), torch.rand(2, 16)
    codes = torch.randint(0, CODES, (2, 16))
    # The model's own loss compares pixels: its parts are run one by one.
    seen = model.vit(canvas, noise=noise)
    logits = model.decoder(seen.last_hidden_state, seen.ids_restore).logits
    losses = torch.nn.functional.cross_entropy(logits.transpose(1, 2), codes, reduction="none")
    loss = (losses * seen.mask).sum() / seen.mask.sum()
    shown = noise.argsort(dim=1)[:, :4]
    given = {"canvas": canvas.permute(0, 2, 3, 1), "shown": shown, "codes": codes}
    return finish(model, loss, given | {"logits": logits})


def seggpt() -> dict:
    """SegGPT's loss on two stacks with patches hidden at random, and three examples of one query."""
    model = transformers.SegGptForImageSegmentation(transformers.SegGptConfig(**SEGGPT))
    randomise(model)
    model.eval()
    prompts, queries, masks, labels = (torch.randn(2, 3, 12, 12) for _ in range(4))
    hidden = torch.rand(2, 18) < 0.6
    out = model(
        queries, prompts, masks, bool_masked_pos=hidden, embedding_type="semantic", labels=labels
    )
    given = {
        "pictures": torch.cat([prompts, queries], dim=2).permute(0, 2, 3, 1),
        "masks": torch.cat([masks, labels], dim=2).permute(0, 2, 3, 1),
        "hidden": hidden,
        "painted": out.pred_masks.permute(0, 2, 3, 1),
    }
    examples, answers = torch.randn(3, 3, 12, 12), torch.randn(3, 3, 12, 12)
    query = torch.randn(1, 3, 12, 12).repeat(3, 1, 1, 1)
    # transformers mixes the streams of pictures and masks in the block that they meet behind; the authors' code, with
    # which the weights were trained, keeps them apart up to there (`merge_idx >= idx`).
    meeting = model.model.encoder.layers[SEGGPT["merge_index"]]
    forward, per_stream = meeting.forward, 2
    meeting.forward = lambda states, _, *rest: forward(states, per_stream, *rest)
    with torch.no_grad():
        together = model(query, examples, answers, feature_ensemble=True).pred_masks
    given["ensemble_pictures"] = torch.cat([examples, query], dim=2).permute(0, 2, 3, 1)
    given["ensemble_masks"] = torch.cat([answers, answers], dim=2).permute(0, 2, 3, 1)
    given["ensemble_painted"] = together.permute(0, 2, 3, 1)
    return finish(model, out.loss, given)


def main() -> None:
    for name, make in (("vit_mae", vit_mae), ("seggpt", seggpt)):
        np.savez_compressed(FIXTURES / f"hf_{name}.npz", **make())


if __name__ == "__main__":
    main()

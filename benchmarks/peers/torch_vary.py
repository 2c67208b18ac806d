"""Tower, linear layer and OPT as a peer that trains: see torch_steps.py, and benchmarks/vary_step.py, whose peer it is.

The folder is OPT's, and has the tower (torch_sam.load), the linear layer (projector.safetensors) and colours.json, the
mean and deviation of pictures. Needs torch and transformers, and nothing of this project.
"""

import json
import pathlib

import torch  # pyright: ignore[reportMissingImports]
import torch_sam  # peers/ is the script's own folder
import transformers  # pyright: ignore[reportMissingImports]
from safetensors.torch import load_file  # pyright: ignore[reportMissingImports]
from torch import nn  # pyright: ignore[reportMissingImports]
from torch_steps import Rows, serve


class ImageText(nn.Module):
    """The weighted mean loss of rows with one picture each."""

    def __init__(self, folder: pathlib.Path) -> None:
        super().__init__()
        self.opt = transformers.OPTForCausalLM.from_pretrained(
            folder, attn_implementation="sdpa", dtype=torch.float32
        )
        self.tower = torch_sam.load(folder)
        tensors = load_file(folder / "projector.safetensors")
        self.linear = nn.Linear(*reversed(tensors["weight"].shape))
        self.linear.load_state_dict(tensors)
        colours = json.loads((folder / "colours.json").read_text())
        for name in ("mean", "deviation"):
            self.register_buffer(name, torch.tensor(colours[name]))

    def forward(self, rows: Rows) -> torch.Tensor:
        """The loss of `tokens` by `loss_weights`, with `images` at `image_places`."""
        tokens, places = rows["tokens"], rows["image_places"][:, 0]
        images = (rows["images"][:, 0] / 255 - self.mean) / self.deviation
        seen = self.linear(self.tower(images.permute(0, 3, 1, 2)))
        embedded = self.opt.get_input_embeddings()(tokens[:, :-1])
        row_of = torch.arange(len(tokens), device=tokens.device)[:, None]
        embedded = embedded.index_put((row_of, places), seen.to(embedded.dtype))
        logits = self.opt(inputs_embeds=embedded, use_cache=False).logits.float().flatten(0, 1)
        labels, weights = tokens[:, 1:].reshape(-1), rows["loss_weights"][:, 1:].reshape(-1)
        losses = nn.functional.cross_entropy(logits, labels, reduction="none")
        return (losses * weights).sum() / weights.sum()


if __name__ == "__main__":
    serve(ImageText)

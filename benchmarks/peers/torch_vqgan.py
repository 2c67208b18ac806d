"""The peer of benchmarks/tokenizer_speed.py and tokenizer_gpu.py: the same VQGAN in PyTorch, driven over stdin.

    python torch_vqgan.py FOLDER THREADS DEVICE LEARNING_RATE

FOLDER holds config.json, weights.npz (published names) and images.npy (float32 NHWC in [0, 1]). Each line {"what":
WHAT, "count": COUNT} of stdin runs it, see answers.py: WHAT is encode, decode or train, and the answer has "ids",
"means" or "losses". Only the taming architecture, without attention. On cuda the encoder and the decoder are compiled
and run under bf16 autocast, on a CPU in fp32; both in channels_last. Needs torch and numpy.
"""

import json
import pathlib
import sys
from collections.abc import Callable

import numpy as np
import torch  # pyright: ignore[reportMissingImports]
from answers import Answer, answer  # peers/ is the script's own folder
from torch import nn  # pyright: ignore[reportMissingImports]
from torch.nn import functional as F  # pyright: ignore[reportMissingImports]


class ResBlock(nn.Module):
    """GroupNorm, SiLU, conv, twice, and a shortcut."""

    def __init__(self, inputs: int, outputs: int, groups: int):
        super().__init__()
        self.norm1 = nn.GroupNorm(min(groups, inputs), inputs, eps=1e-6)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm2 = nn.GroupNorm(min(groups, outputs), outputs, eps=1e-6)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.nin_shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x):
        """Residual update."""
        h = self.conv1(F.silu(self.norm1(x)))
        return self.nin_shortcut(x) + self.conv2(F.silu(self.norm2(h)))


class Level(nn.Module):
    """Residual blocks, then a strided convolution or a doubling and a convolution."""

    def __init__(self, inputs: int, width: int, blocks: int, groups: int, resample: str):
        super().__init__()
        sizes = [inputs] + [width] * (blocks - 1)
        self.block = nn.ModuleList(ResBlock(size, width, groups) for size in sizes)
        self.resample = resample
        if resample == "downsample":
            self.downsample = nn.ModuleDict({"conv": nn.Conv2d(width, width, 3, stride=2)})
        if resample == "upsample":
            self.upsample = nn.ModuleDict({"conv": nn.Conv2d(width, width, 3, padding=1)})

    def forward(self, x):
        """Runs the level."""
        for block in self.block:
            x = block(x)
        if self.resample == "downsample":
            x = self.downsample["conv"](F.pad(x, (0, 1, 0, 1)))
        if self.resample == "upsample":
            x = self.upsample["conv"](F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return x


class Half(nn.Module):
    """Encoder or decoder."""

    def __init__(self, config: dict, decoder: bool):
        super().__init__()
        widths = [config["hidden_channels"] * m for m in config["channel_mult"]]
        groups, blocks, last = config["norm_groups"], config["num_res_blocks"], len(widths) - 1
        pixels, latent = config["num_channels"], config["z_channels"]
        first, top = widths[0], widths[-1]
        self.decoder = decoder
        self.conv_in = nn.Conv2d(*((latent, top) if decoder else (pixels, first)), 3, padding=1)
        self.mid = nn.ModuleDict({f"block_{i}": ResBlock(top, top, groups) for i in (1, 2)})
        if decoder:
            above = [*widths[1:], top]
            levels = [
                Level(above[i], w, blocks + 1, groups, "upsample" if i else "")
                for i, w in enumerate(widths)
            ]
            self.up = nn.ModuleList(levels)
        else:
            below = [first, *widths[:-1]]
            levels = [
                Level(below[i], w, blocks, groups, "downsample" if i < last else "")
                for i, w in enumerate(widths)
            ]
            self.down = nn.ModuleList(levels)
        out, channels = (pixels, first) if decoder else (latent, top)
        self.norm_out = nn.GroupNorm(min(groups, channels), channels, eps=1e-6)
        self.conv_out = nn.Conv2d(channels, out, 3, padding=1)

    def forward(self, x):
        """Images to latents, or latents to images."""
        x = self.conv_in(x)
        if self.decoder:
            x = self.mid["block_2"](self.mid["block_1"](x))
            for level in reversed(self.up):
                x = level(x)
        else:
            for level in self.down:
                x = level(x)
            x = self.mid["block_2"](self.mid["block_1"](x))
        return self.conv_out(F.silu(self.norm_out(x)))


class VQGAN(nn.Module):
    """The whole tokenizer."""

    def __init__(self, config: dict):
        super().__init__()
        latent, dim = config["z_channels"], config["quantized_embed_dim"]
        self.encoder, self.decoder = Half(config, False), Half(config, True)
        self.quant_conv = nn.Conv2d(latent, dim, 1)
        self.post_quant_conv = nn.Conv2d(dim, latent, 1)
        codebook = nn.Embedding(config["num_embeddings"], dim)
        self.quantize = nn.ModuleDict({"embedding": codebook})

    def latents(self, x):
        """Features as rows, fp32, and their map's shape."""
        z = self.quant_conv(self.encoder(x)).float()
        return z.permute(0, 2, 3, 1).reshape(-1, z.shape[1]), z.shape

    def nearest(self, rows):
        """Ids of the nearest codes."""
        codes = self.quantize["embedding"].weight
        with torch.autocast(rows.device.type, enabled=False):
            return (2 * rows @ codes.T - codes.square().sum(1)).argmax(1)

    def encode(self, x):
        """Images to ids."""
        return self.nearest(self.latents(x)[0])

    def pixels(self, rows, shape):
        """Codes as rows to images."""
        batch, dim, height, width = shape
        codes = rows.reshape(batch, height, width, dim).permute(0, 3, 1, 2)
        return self.decoder(self.post_quant_conv(codes))

    def decode(self, ids, shape):
        """Ids to images."""
        return self.pixels(self.quantize["embedding"](ids), shape).clamp(0, 1)

    def loss(self, x):
        """L1 and both terms of vector quantisation, beta 0.25 at the features."""
        rows, shape = self.latents(x)
        codes = self.quantize["embedding"](self.nearest(rows.detach()))
        output = self.pixels(rows + (codes - rows).detach(), shape).float()
        commitment = F.mse_loss(codes, rows.detach()) + 0.25 * F.mse_loss(rows, codes.detach())
        return (output - x).abs().mean() + commitment


def main() -> None:
    """Loads the folder, then does what each line of stdin asks for."""
    folder, threads, device, learning_rate = sys.argv[1:]
    torch.set_num_threads(int(threads))
    torch.backends.cuda.matmul.allow_tf32 = False
    config = json.loads((pathlib.Path(folder) / "config.json").read_text())
    model = VQGAN(config)
    with np.load(pathlib.Path(folder) / "weights.npz") as weights:
        model.load_state_dict({name: torch.from_numpy(weights[name]) for name in weights.files})
    model.to(device, memory_format=torch.channels_last)
    images = np.load(pathlib.Path(folder) / "images.npy")
    x = torch.from_numpy(images).permute(0, 3, 1, 2).to(device)  # already channels_last
    optimizer = torch.optim.Adam(model.parameters(), lr=float(learning_rate))
    cuda = device.startswith("cuda")
    encode, decode = model.encode, model.decode
    if cuda:
        encode, decode = torch.compile(encode), torch.compile(decode)
    side = images.shape[1] >> (len(config["channel_mult"]) - 1)
    shape = (len(images), config["quantized_embed_dim"], side, side)
    tokens = torch.arange(len(images) * side * side, device=device) % config["num_embeddings"]

    def train():
        optimizer.zero_grad(set_to_none=True)
        loss = model.loss(x)
        loss.backward()
        optimizer.step()
        return loss.item()

    ways = {"encode": lambda: encode(x), "decode": lambda: decode(tokens, shape), "train": train}

    def run(question: Answer) -> Callable[[], Answer]:
        what, results = question["what"], []
        with (
            torch.autocast(device.split(":")[0], dtype=torch.bfloat16, enabled=cuda),
            torch.set_grad_enabled(what == "train"),
        ):
            for _ in range(question["count"]):
                results.append(ways[what]())
        if cuda:
            torch.cuda.synchronize()
        return {
            "encode": lambda: {"ids": results[-1].tolist()},
            "decode": lambda: {"means": results[-1].float().mean(dim=(1, 2, 3)).tolist()},
            "train": lambda: {"losses": results},
        }[what]

    answer(run)


if __name__ == "__main__":
    main()

"""The peer of benchmarks/tower_speed.py: the tower's forward pass, or both passes, in PyTorch.

    python torch_tower.py FOLDER THREADS

FOLDER has tower.json, tower.safetensors and images.npy (B, H, W, 3), normalised. Each line {"way": "forward" or "both",
"output": PATH or ""} of stdin runs it, see answers.py; with a path the tokens are written there, or with "both" the
gradient of the images. Needs torch and transformers, and nothing of this project.
"""

import pathlib
import sys
from collections.abc import Callable

import numpy as np
import torch  # pyright: ignore[reportMissingImports]
from answers import Answer, answer  # peers/ is the script's own folder
from torch_sam import load


def main() -> None:
    """Loads the folder, then answers each line of stdin."""
    folder, threads = pathlib.Path(sys.argv[1]), int(sys.argv[2])
    torch.set_num_threads(threads)
    tower = load(folder)
    images = torch.from_numpy(np.load(folder / "images.npy")).permute(0, 3, 1, 2).contiguous()

    def forward() -> torch.Tensor:
        with torch.inference_mode():
            return tower(images)

    def both() -> torch.Tensor:
        tower.zero_grad(set_to_none=True)
        x = images.clone().requires_grad_()
        tower(x).square().sum().backward()
        assert x.grad is not None
        return x.grad.permute(0, 2, 3, 1)

    ways = {"forward": forward, "both": both}

    def run(question: Answer) -> Callable[[], Answer]:
        result = ways[question["way"]]()

        def written() -> Answer:
            if path := question["output"]:
                np.save(path, result.numpy())
            return {}

        return written

    answer(run)


if __name__ == "__main__":
    main()

"""The peer of benchmarks/tower_speed.py: the tower's forward pass, or both passes, in PyTorch.

    python torch_tower.py FOLDER THREADS

FOLDER has tower.json, tower.safetensors and images.npy (B, H, W, 3), normalised. Prints a JSON line with versions, then
{"seconds", "cpu_seconds"} for each line {"way": "forward" or "both", "output": PATH or ""} that it reads; with a path
it writes the tokens there, or with "both" the gradient of the images. Needs torch and transformers, and nothing of this
project.
"""

import json
import pathlib
import sys
import time

import numpy as np
import torch  # pyright: ignore[reportMissingImports]
from torch_sam import load  # peers/ is the script's own folder
from torch_steps import VERSIONS


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
    print(json.dumps(VERSIONS), flush=True)
    for line in sys.stdin:
        question = json.loads(line)
        begin, cpu_begin = time.perf_counter(), time.process_time()
        result = ways[question["way"]]()
        seconds, cpu_seconds = time.perf_counter() - begin, time.process_time() - cpu_begin
        if path := question["output"]:
            np.save(path, result.numpy())
        print(json.dumps({"seconds": seconds, "cpu_seconds": cpu_seconds}), flush=True)


if __name__ == "__main__":
    main()

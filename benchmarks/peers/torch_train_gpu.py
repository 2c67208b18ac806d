"""The peer of benchmarks/train_gpu.py: one turn of training by PyTorch and transformers.

    python torch_train_gpu.py '{"system": ..., "folder": ..., "rows": ..., "steps": ..., "warm_up": ..., "compute": {}}'

bf16 autocast over fp32 weights, torch.compile, fused AdamW; on a CPU the last two are left out. LLaMA's attention is
cuDNN's and no other. Prints a JSON line: losses, seconds, compile_seconds, peak_bytes, versions. Needs torch and
transformers, and nothing of this project.
"""

import contextlib
import json
import pathlib
import sys
import time

import torch  # pyright: ignore[reportMissingImports]
import torch_llama  # peers/ is the script's own folder
import torch_unified
import torch_vary
from answers import VERSIONS
from torch.nn.attention import SDPBackend, sdpa_kernel  # pyright: ignore[reportMissingImports]
from torch_steps import Rows, read_rows, stepper

LOADERS = {"lvm": torch_llama.load, "vary": torch_vary.ImageText, "unified": torch_unified.load}


def main() -> None:
    """Answers the question of the command line."""
    question = json.loads(sys.argv[1])
    cuda, system = torch.cuda.is_available(), question["system"]
    device = "cuda" if cuda else "cpu"
    torch.set_float32_matmul_precision("high")
    model = LOADERS[system](pathlib.Path(question["folder"])).to(device)
    model.train()
    rows = {name: x.to(device) for name, x in read_rows(question["rows"]).items()}

    def loss_of(batch: Rows) -> torch.Tensor:
        with torch.autocast(device, torch.bfloat16):
            return model(batch)

    if cuda:
        loss_of = torch.compile(loss_of, mode="max-autotune-no-cudagraphs")
    update = stepper(model, loss_of, **question["compute"], fused=cuda)

    def step(number: int) -> torch.Tensor:
        return update({name: x[number % len(x)] for name, x in rows.items()})

    def wait() -> float:
        if cuda:
            torch.cuda.synchronize()
        return time.perf_counter()

    forced = cuda and system == "lvm"  # a tower's bias, and heads of other widths, need others too
    attention = sdpa_kernel(SDPBackend.CUDNN_ATTENTION) if forced else contextlib.nullcontext()
    with attention:
        times, losses = [wait()], []
        for number in range(question["warm_up"] + question["steps"]):
            losses.append(step(number))
            if number < question["warm_up"]:
                times.append(wait())
        end = wait()
    print(
        json.dumps(
            {
                "losses": [loss.item() for loss in losses],
                "seconds": end - times[-1],
                "compile_seconds": times[1] - times[0] if len(times) > 1 else 0.0,
                "peak_bytes": torch.cuda.max_memory_allocated() if cuda else 0,
                "versions": VERSIONS,
            }
        )
    )


if __name__ == "__main__":
    main()

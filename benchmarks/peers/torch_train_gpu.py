"""The peer of benchmarks/train_gpu.py: one turn of training by PyTorch and transformers.

    python torch_train_gpu.py '{"folder": ..., "tokens": ..., "steps": ..., "warm_up": ..., "compute": {...}}'

bf16 autocast over fp32 weights, torch.compile, cuDNN's attention and no other, fused AdamW; on a CPU the last three are
left out. Prints a JSON line: losses, seconds, compile_seconds, peak_bytes, versions. Needs torch and transformers, and
nothing of this project.
"""

import contextlib
import json
import sys
import time

import numpy as np
import torch  # pyright: ignore[reportMissingImports]
import transformers  # pyright: ignore[reportMissingImports]
from torch.nn.attention import SDPBackend, sdpa_kernel  # pyright: ignore[reportMissingImports]


def main() -> None:
    """Answers the question of the command line."""
    question = json.loads(sys.argv[1])
    cuda = torch.cuda.is_available()
    device = "cuda" if cuda else "cpu"
    torch.set_float32_matmul_precision("high")
    model = transformers.LlamaForCausalLM.from_pretrained(
        question["folder"], attn_implementation="sdpa", dtype=torch.float32
    ).to(device)
    model.train()
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=question["compute"]["learning_rate"],
        betas=(0.9, 0.95),
        eps=1e-8,
        weight_decay=question["compute"]["weight_decay"],
        fused=cuda,
    )
    tokens = torch.from_numpy(np.load(question["tokens"])).long().to(device)

    def loss_of(rows: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device, torch.bfloat16):
            logits = model(input_ids=rows[:, :-1], use_cache=False).logits
        return torch.nn.functional.cross_entropy(
            logits.float().flatten(0, 1), rows[:, 1:].flatten()
        )

    if cuda:
        loss_of = torch.compile(loss_of, mode="max-autotune-no-cudagraphs")

    def step(number: int) -> torch.Tensor:
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(tokens[number % len(tokens)])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss.detach()

    def wait() -> float:
        if cuda:
            torch.cuda.synchronize()
        return time.perf_counter()

    attention = sdpa_kernel(SDPBackend.CUDNN_ATTENTION) if cuda else contextlib.nullcontext()
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
                "versions": {
                    "torch": torch.__version__,
                    "transformers": transformers.__version__,
                },
            }
        )
    )


if __name__ == "__main__":
    main()

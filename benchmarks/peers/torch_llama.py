"""The peer of benchmarks/train_step.py: the same decoder trained by PyTorch and transformers, driven over stdin.

    python torch_llama.py MODEL_FOLDER TOKENS.npy THREADS LEARNING_RATE WEIGHT_DECAY COMPILE

Prints a JSON line with versions, then one for each line {"steps": COUNT} that it reads:
{"seconds", "cpu_seconds", "losses"}. COMPILE is 1 for torch.compile of forward and backward pass, else 0; it needs a
C++ compiler.
Needs torch and transformers, and nothing of this project.
"""

import json
import sys
import time

import numpy as np
import torch  # pyright: ignore[reportMissingImports]
import transformers  # pyright: ignore[reportMissingImports]


def main() -> None:
    """Loads the folder, then trains as many steps as each line of stdin asks for, on the same batch."""
    folder, tokens_path, threads, learning_rate, weight_decay, compiled = sys.argv[1:]
    torch.set_num_threads(int(threads))
    model = transformers.LlamaForCausalLM.from_pretrained(
        folder, attn_implementation="sdpa", dtype=torch.float32
    )
    model.train()
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=float(learning_rate),
        betas=(0.9, 0.95),
        eps=1e-8,
        weight_decay=float(weight_decay),
    )
    tokens = torch.from_numpy(np.load(tokens_path)).long()
    inputs, labels = tokens[:, :-1].contiguous(), tokens[:, 1:].reshape(-1)

    def loss_of(inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        logits = model(input_ids=inputs, use_cache=False).logits
        return torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), labels)

    if int(compiled):
        loss_of = torch.compile(loss_of)

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(inputs, labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss.item()

    print(
        json.dumps({"torch": torch.__version__, "transformers": transformers.__version__}),
        flush=True,
    )
    for line in sys.stdin:
        begin, cpu_begin = time.perf_counter(), time.process_time()
        losses = [step() for _ in range(json.loads(line)["steps"])]
        seconds, cpu_seconds = time.perf_counter() - begin, time.process_time() - cpu_begin
        print(
            json.dumps({"seconds": seconds, "cpu_seconds": cpu_seconds, "losses": losses}),
            flush=True,
        )


if __name__ == "__main__":
    main()

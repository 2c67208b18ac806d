"""The peer of benchmarks/decoding.py and decoding_gpu.py: PyTorch and transformers' generate, driven over stdin.

    python torch_decoding.py MODEL_FOLDER DEVICE DTYPE THREADS

Each line of stdin is answered with "ids", see answers.py:
  {"tokens": [...], "new": N, "codes": K, "candidates": B, "way": "static" or "one_by_one", "sample": bool,
   "compile": bool}
"static" is one batch of B rows with a static cache; "one_by_one" is how the published evaluation asks: B calls of
batch 1 with the default cache. Needs torch and transformers, and nothing of this project.
"""

import sys
from collections.abc import Callable

import torch  # pyright: ignore[reportMissingImports]
import transformers  # pyright: ignore[reportMissingImports]
from answers import Answer, answer  # peers/ is the script's own folder


def main() -> None:
    """Loads the folder, then answers each line of stdin."""
    folder, device, dtype, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    model = transformers.LlamaForCausalLM.from_pretrained(
        folder, attn_implementation="sdpa", dtype=getattr(torch, dtype)
    ).to(device)
    model.eval()
    # A code must not end an image: in the published export the id of EOS is one.
    model.generation_config.eos_token_id = None
    eager = model.forward

    @torch.inference_mode()
    def generate(question: Answer) -> Callable[[], Answer]:
        rows = question["candidates"] if question["way"] == "static" else 1
        inputs = torch.tensor([question["tokens"]] * rows, device=device)
        suppressed = list(range(question["codes"], model.config.vocab_size))
        options = {
            "attention_mask": torch.ones_like(inputs),
            "max_new_tokens": question["new"],
            "min_new_tokens": question["new"],
            "do_sample": question["sample"],
            "suppress_tokens": suppressed,
            "pad_token_id": question["codes"],
        }
        if question["sample"]:
            options |= {"temperature": 1.0, "top_k": 0, "top_p": 1.0}
        if question["way"] == "static":
            options["cache_implementation"] = "static"
        model.forward = (
            torch.compile(eager, mode="reduce-overhead") if question["compile"] else eager
        )
        calls = question["candidates"] // rows
        made = [model.generate(inputs, **options)[:, inputs.shape[1] :] for _ in range(calls)]
        ids = torch.cat(made).tolist()  # brought to the host, so the device is done
        return lambda: {"ids": ids}

    answer(generate)


if __name__ == "__main__":
    main()

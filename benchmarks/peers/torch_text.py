"""The peer of benchmarks/text_decoding.py: PyTorch and transformers' generate, driven over stdin.

    python torch_text.py MODEL_FOLDER THREADS

Each line of stdin is answered with "ids", see answers.py:
  {"next": [id of each prompt], "new": N, "forbidden": [ids], "way": "dynamic" or "static"}
The prompts are MODEL_FOLDER/embeds.npy (B, T, D), each followed by its id. Needs torch and transformers, and nothing of
this project.
"""

import pathlib
import sys
from collections.abc import Callable

import numpy as np
import torch  # pyright: ignore[reportMissingImports]
import transformers  # pyright: ignore[reportMissingImports]
from answers import Answer, answer  # peers/ is the script's own folder


def main() -> None:
    """Loads the folder, then answers each line of stdin."""
    folder, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    model = transformers.OPTForCausalLM.from_pretrained(
        folder, attn_implementation="sdpa", dtype=torch.float32
    )
    model.eval()
    model.generation_config.eos_token_id = None
    embeds = torch.from_numpy(np.load(pathlib.Path(folder) / "embeds.npy"))

    @torch.inference_mode()
    def generate(question: Answer) -> Callable[[], Answer]:
        last = model.get_input_embeddings()(torch.tensor(question["next"])[:, None])
        inputs = torch.cat([embeds, last], dim=1)
        options = {
            "attention_mask": torch.ones(inputs.shape[:2], dtype=torch.long),
            "max_new_tokens": question["new"],
            "min_new_tokens": question["new"],
            "do_sample": False,
            "suppress_tokens": question["forbidden"],
        }
        if question["way"] == "static":
            options["cache_implementation"] = "static"
        ids = model.generate(inputs_embeds=inputs, **options).tolist()
        return lambda: {"ids": ids}

    answer(generate)


if __name__ == "__main__":
    main()

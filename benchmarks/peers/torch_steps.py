"""What the training peers share: the optimizer, and turns of training.

    python torch_NAME.py FOLDER THREADS LEARNING_RATE WEIGHT_DECAY COMPILE

FOLDER has the model and rows.npz, the batch. COMPILE is 1 for torch.compile of forward and backward pass, else 0; it
needs a C++ compiler. Each line {"steps": COUNT} of stdin trains some steps, and is answered with their "losses"; see
answers.py.
"""

import pathlib
import sys
from collections.abc import Callable

import numpy as np
import torch  # pyright: ignore[reportMissingImports]
from answers import Answer, answer  # peers/ is the script's own folder

Rows = dict[str, torch.Tensor]


def read_rows(path: pathlib.Path) -> Rows:
    """The arrays of a file; ids are int64, as embeddings and losses take them."""
    arrays = {name: torch.from_numpy(array) for name, array in np.load(path).items()}
    return {name: x.long() if x.dtype == torch.int32 else x for name, x in arrays.items()}


def stepper(
    model: torch.nn.Module,
    loss_of: Callable[[Rows], torch.Tensor],
    learning_rate: float,
    weight_decay: float,
    fused: bool = False,
) -> Callable[[Rows], torch.Tensor]:
    """A function that trains one step: gradients clipped to norm 1, AdamW; it gives the loss."""
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(
        parameters,
        lr=learning_rate,
        betas=(0.9, 0.95),
        eps=1e-8,
        weight_decay=weight_decay,
        fused=fused,
    )

    def step(rows: Rows) -> torch.Tensor:
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(rows)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        return loss.detach()

    return step


def serve(load: Callable[[pathlib.Path], torch.nn.Module]) -> None:
    """Opens the folder by `load`, whose module maps rows to their loss, then trains what each line asks for."""
    folder, threads, learning_rate, weight_decay, compiled = sys.argv[1:]
    torch.set_num_threads(int(threads))
    model, rows = load(pathlib.Path(folder)), read_rows(pathlib.Path(folder) / "rows.npz")
    model.train()
    loss_of = torch.compile(model) if int(compiled) else model
    step = stepper(model, loss_of, float(learning_rate), float(weight_decay))

    def train(question: Answer) -> Callable[[], Answer]:
        losses = [step(rows).item() for _ in range(question["steps"])]
        return lambda: {"losses": losses}

    answer(train)

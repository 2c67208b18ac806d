"""The reader of the published LVM code, re-created from its description: jsonl of base64 int32, line by line.

Each line goes through `json.loads` and base64 into Python lists of tokens and loss masks; the stream of all lines,
with BOS and EOS, is cut into rows. It neither shuffles nor keeps sentences apart.
"""

import base64
import json
import pathlib
from collections.abc import Iterator

import numpy as np


def rows(path: pathlib.Path, batch: int, seq_len: int, bos: int) -> Iterator[dict[str, np.ndarray]]:
    """Batches of inputs, labels and loss masks, each (batch, seq_len); repeats the file forever."""
    chunk = batch * seq_len
    tokens: list[int] = []
    masks: list[float] = []
    while True:
        with path.open("rb") as lines:
            for line in lines:
                codes = np.frombuffer(base64.b64decode(json.loads(line)["tokens"]), "<i4").tolist()
                tokens += [bos, *codes, bos + 1]
                masks += [0.0, *([1.0] * len(codes)), 1.0]
                while len(tokens) > chunk + 1:
                    yield {
                        "input_tokens": np.array(tokens[:chunk], np.int32).reshape(batch, seq_len),
                        "target_tokens": np.array(tokens[1 : chunk + 1], np.int32).reshape(
                            batch, seq_len
                        ),
                        "loss_masks": np.array(masks[1 : chunk + 1], np.float32).reshape(
                            batch, seq_len
                        ),
                    }
                    tokens, masks = tokens[chunk:], masks[chunk:]

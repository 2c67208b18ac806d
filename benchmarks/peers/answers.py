"""How a peer answers its driver: a JSON line for each JSON line of stdin, with the seconds that the work took.

Needs nothing of this project, and of PyTorch only the versions.
"""

import importlib.metadata
import importlib.util
import json
import sys
import time
from collections.abc import Callable
from typing import Any

Answer = dict[str, Any]

VERSIONS = {
    name: importlib.metadata.version(name)
    for name in ("torch", "transformers")
    if importlib.util.find_spec(name)
}


def answer(work: Callable[[Answer], Callable[[], Answer]]) -> None:
    """Prints the versions, then "seconds", "cpu_seconds" and the answer to each question.

    Args:
      work: does what a question asks for. What it returns is called when the clock has stopped, and gives the answer.
    """
    print(json.dumps(VERSIONS), flush=True)
    for line in sys.stdin:
        question = json.loads(line)
        begin, cpu_begin = time.perf_counter(), time.process_time()
        finish = work(question)
        seconds, cpu_seconds = time.perf_counter() - begin, time.process_time() - cpu_begin
        print(json.dumps({"seconds": seconds, "cpu_seconds": cpu_seconds, **finish()}), flush=True)

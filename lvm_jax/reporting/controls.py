"""Controls in plain words and as tables: on which tasks an answer depends on the query, on the pairs, on the frames.

The numbers are those of `lvm_jax.evaluation.lvm.controls`: TASK/NUMBER -> nats a code, and TASK/NUMBER_error.
"""

from collections.abc import Mapping
from typing import Any

from lvm_jax.reporting import markdown
from lvm_jax.reporting.numbers import hundredths, number

LEAST_NATS = 0.02  # a smaller difference is flat, however small its error
NOT_MEASURED = (
    "The controls were not measured: nothing here says whether answers depend on the query or on the pairs. "
    "experiments/evaluate.py measures them."
)
EXPLAINED = (
    "Each control takes one thing away and asks how likely the true answer still is: another sentence's query, the "
    "answers of the pairs shuffled, another clip's frame just before. Where that costs nothing, nobody looked at it."
)
CAPTION = (
    "Nats a code of the true last image, right and with one thing changed; ± is one standard error over sentences. "
    f"Flat: the difference is below two standard errors, or below {LEAST_NATS} nats."
)

# What a control takes away, and what stands in its place.
_WORDS = {
    "uses_query": ("the query", "another sentence's query"),
    "uses_pairs": ("the pairs", "shuffling their answers"),
    "uses_last": ("the image before it", "another clip's"),
    "uses_order": ("the order of the images before it", "shuffling them"),
}
_OF_PAIRS = (
    *("sentences", "pairs", "right", "uses_query", "uses_pairs", "uses_task"),  # what matters first
    *("other_query", "shuffled_answers", "other_pairs", "other_task", "no_pairs", "one_pair"),
)
_OF_SEQUENCES = (
    *("sentences", "context", "right", "uses_last", "uses_order"),
    *("other_last", "shuffled_context", "no_context"),
)

Tasks = dict[str, dict[str, Any]]
Grid = tuple[tuple[str, ...], list[tuple[Any, ...]]]


def is_flat(difference: float, error: float, least: float = LEAST_NATS) -> bool:
    """Whether a control's difference cannot be told from none: within two standard errors, or below `least`."""
    return difference == 0 or abs(difference) < max(2 * error, least)


def headline(results: Mapping[str, Any] | None) -> str:
    """Which tasks are flat, and in what, then what the answers depend on; None, as in older runs, was not measured."""
    if results is None:
        return NOT_MEASURED
    tasks = by_task(results)
    flat, depends = [], []
    for use, (thing, _) in _WORDS.items():
        known = {task: values for task, values in tasks.items() if _flat(values, use) is not None}
        names = [task for task, values in known.items() if _flat(values, use)]
        if names:
            counted = f"in {len(names)} of {_tasks(len(known))}"
            flat.append(f"on {thing} {counted}{_which(names, list(known))}")
        elif known:
            costs = [values[use] for values in known.values()]
            ends = dict.fromkeys((hundredths(min(costs)), hundredths(max(costs))))
            measured = f"by {' to '.join(ends)} nats a code"
            depends.append(f"on {thing} in {len(known)} of {_tasks(len(known))} ({measured})")
    sentences = [
        f"The answer {verb} {', '.join(parts)}."
        for verb, parts in (("does not depend", flat), ("depends", depends))
        if parts
    ]
    return " ".join(sentences) or (
        "No task has enough held-out sentences to tell what its answers depend on."
    )


def plain_words(results: Mapping[str, Any]) -> list[str]:
    """A sentence for each task: what its answer depends on, and what the control costs."""
    return [
        f"On {task} the answer {'; it '.join(_clauses(values))}."
        for task, values in by_task(results).items()
    ]


def tables(results: Mapping[str, Any]) -> list[Grid]:
    """(header, a row for each task), for the tasks of pairs and for the sequences; a number that is missing is None."""
    tasks = by_task(results)
    found = []
    for columns, marks in ((_OF_PAIRS, "pairs"), (_OF_SEQUENCES, "context")):
        rows = [
            (task, *(_cell(values, column) for column in columns))
            for task, values in tasks.items()
            if marks in values
        ]
        header = ("task", *(column.replace("_", " ") for column in columns))
        found += [(header, rows)] if rows else []
    return found


def as_markdown(results: Mapping[str, Any]) -> str:
    """Headline, sentences and tables."""
    return f"{headline(results)}\n\n{details_as_markdown(results)}"


def details_as_markdown(results: Mapping[str, Any]) -> str:
    """Sentences and tables, task by task."""
    grids = [
        markdown.table(header, [tuple(map(number, row)) for row in rows])
        for header, rows in tables(results)
    ]
    words = "".join(f"- {sentence}\n" for sentence in plain_words(results))
    return "\n".join([*([words] if words else []), *grids, f"{CAPTION}\n"])


def by_task(results: Mapping[str, Any]) -> Tasks:
    """The numbers of each task."""
    tasks: Tasks = {}
    for name, value in results.items():
        task, slash, what = name.rpartition("/")  # a source's name may have slashes of its own
        if slash:
            tasks.setdefault(task, {})[what] = value
    return tasks


def _which(names: list[str], known: list[str]) -> str:
    """Names some of the known tasks, or the others where those are fewer; nothing if it is all of them."""
    others = [task for task in known if task not in names]
    if not others:
        return ""
    few = "; ".join(names) if len(names) <= len(others) else f"all but {'; '.join(others)}"
    return f" ({few})"


def _tasks(count: int) -> str:
    return "1 task" if count == 1 else f"{count} tasks"


def _clauses(values: Mapping[str, Any]) -> list[str]:
    clauses = []
    for use, (thing, instead) in _WORDS.items():
        verdict = _flat(values, use)
        if verdict is not None:
            cost, error = values[use], values[f"{use}_error"]
            depends = "does not depend" if verdict else "depends"
            clauses.append(
                f"{depends} on {thing}: {instead} costs {hundredths(cost)} nats a code (± {hundredths(error)})"
            )
    return clauses or ["may depend on anything: its sentences are too few to tell"]


def _flat(values: Mapping[str, Any], use: str) -> bool | None:
    """None without a difference or its error."""
    if use not in values or f"{use}_error" not in values:
        return None
    return is_flat(values[use], values[f"{use}_error"])


def _cell(values: Mapping[str, Any], column: str) -> Any:
    verdict = _flat(values, column) if column.startswith("uses_") else None
    if verdict is None:
        return values.get(column)
    difference = f"{hundredths(values[column])} ± {hundredths(values[f'{column}_error'])}"
    return f"{difference}, flat" if verdict else difference

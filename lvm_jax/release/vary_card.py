"""What the card of Vary says: whether it looks at its pictures, what it reads beside controls and OCR engines."""

import json
from collections.abc import Iterator, Mapping, Sequence

from lvm_jax.models.vision_language.model import VisionLanguage
from lvm_jax.release.card import CardParts, bullets, stored
from lvm_jax.reporting import markdown, vary_words
from lvm_jax.reporting.numbers import number as n
from lvm_jax.reporting.numbers import percent
from lvm_jax.reporting.vary_gates import gates
from lvm_jax.reporting.vary_inputs import TWO, VaryFiles
from lvm_jax.reporting.vary_page import score_tables

_LOAD = """```python
from lvm_jax.data.text_tokenizer import TextTokenizer
from lvm_jax.inference import generate_text
from lvm_jax.models import VisionLanguage

model = VisionLanguage.from_pretrained("release/vary/model")
tokenizer = TextTokenizer("release/vary/model")
print(generate_text(model, tokenizer, "page.png", {question}))
```

`release/vary/pages` has held-out pages with their questions and answers.
"""


def card_parts(
    files: VaryFiles, model: VisionLanguage, dtype: str, trainings: Mapping[str, Sequence[str]]
) -> CardParts:
    """What the card says.

    Args:
      files: of the run.
      model: that is released.
      dtype: of its stored weights.
      trainings: see `CardParts`.
    """
    sets = files.evaluated[TWO].scores
    questions = list(
        dict.fromkeys(said[0]["question"] for said in files.evaluated[TWO].said.values())
    )
    return CardParts(
        headline=vary_words.headline(sets),
        what=_what(model, dtype, questions),
        demands=gates(files),
        load=_LOAD.format(question=json.dumps(questions[0], ensure_ascii=False)),
        manifests=files.manifests,
        trainings=trainings,
        stages=files.stages,
        workdir=str(files.workdir),
        environment=files.environment,
        scores=_scores(files),
        limits=list(_limits(files, model)),
    )


def _what(model: VisionLanguage, dtype: str, questions: Sequence[str]) -> str:
    towers = [
        "{} of {} x {} pixels".format(name, *branch.tower.image_size)
        for name, branch in model.config.branches.items()
    ]
    asked = ", ".join(f"*{question}*" for question in questions if question) or "*(nothing)*"
    return (
        f"A model that reads pages ({stored(model, dtype)}): the towers see views of a picture "
        f"({', '.join(towers)}, height x width), and a decoder that reads and writes "
        f"{n(model.decoder.config.max_position_embeddings)} tokens answers in words. It was asked: {asked}"
    )


def _scores(files: VaryFiles) -> list[str]:
    words = [
        vary_words.control_words(part, scores)
        for part, scores in files.evaluated[TWO].scores.items()
    ]
    blocks = [
        f"{vary_words.EXPLAINED}\n",
        bullets(words),
    ]
    for table in score_tables(files):
        rows = [tuple(map(n, row)) for row in table.rows]
        blocks += [f"{table.caption.capitalize()}:\n", markdown.table(table.header, rows)]
    return blocks


def _limits(files: VaryFiles, model: VisionLanguage) -> Iterator[str]:
    """What it cannot do, going by the numbers."""
    branches = model.config.branches.values()
    height, width = max((branch.tower.image_size for branch in branches), key=lambda s: s[0] * s[1])
    yield (
        f"A page is scaled to {height} x {width} pixels; type that is smaller there than in its data is not read."
    )
    right = {part: scores["model/exact"] for part, scores in files.evaluated[TWO].scores.items()}
    weak = [f"{part} ({percent(share)})" for part, share in right.items() if share < 0.5]
    if weak:
        yield f"Less than half of its answers are right word for word in: {', '.join(weak)}."
    yield "It writes in its data's alphabets only, and does not know what it cannot read: it answers all the same."

r"""Scores a model that reads pages on a set of pages, each score beside what it is without the page.

  python experiments/evaluate_documents.py --model=DIR --output=OUT --benchmark=NAME --data=DATA

  NAME       DATA                                                      scores
  pages      JSON of Fox or GOT-OCR2.0, with --images=FOLDER           edit distance, CER, words, BLEU, METEOR
  docvqa     DocVQA/val/val_v1.0.json                                  ANLS
  chartqa    ChartQA/test                                              relaxed accuracy
  sroie      SROIE's third task, one split                             fields
  shards     our own image-text shards, with --split                   text or fields, by source

Every question is asked with its page, with a page of another answer, with a blank page and without any. With --peers
Tesseract and RapidOCR read the pages too, where they are installed.

OUT/results.json and OUT/results.md have the scores, OUT/SET.jsonl every answer, and with --pictures OUT/SET/NUMBER.png
the page of each. See docs/vary_answers.md.
"""

import json
from collections.abc import Sequence
from typing import Any

from absl import flags
from etils import epath

from lvm_jax import cli, files
from lvm_jax.data.image_text.views import FITS, fit_named
from lvm_jax.data.text_tokenizer import TextTokenizer
from lvm_jax.errors import UserError
from lvm_jax.evaluation import about
from lvm_jax.evaluation.documents.answer_scores import Kind
from lvm_jax.evaluation.documents.ocr_peers import score_peers
from lvm_jax.evaluation.documents.page_evaluator import Answers, PageEvaluator
from lvm_jax.evaluation.documents.page_questions import PageSet
from lvm_jax.evaluation.documents.readers import (
    read_chartqa,
    read_docvqa,
    read_pages,
    read_shards,
    read_sroie,
)
from lvm_jax.inference.text_generator import Asked, TextGenerator, Writing, views_of
from lvm_jax.models.vision_language.model import VisionLanguage
from lvm_jax.parallel import runtime
from lvm_jax.reporting.figures import save_png
from lvm_jax.reporting.markdown import as_markdown

_MODEL = flags.DEFINE_string("model", None, "folder of the model", required=True)
_TOKENIZER = flags.DEFINE_string(
    "tokenizer", None, "folder of its text tokenizer; default: the model's folder"
)
_BENCHMARK = flags.DEFINE_enum(
    "benchmark", None, ["pages", "docvqa", "chartqa", "sroie", "shards"], "see above", required=True
)
_DATA = flags.DEFINE_string("data", None, "the data set, see above", required=True)
_IMAGES = flags.DEFINE_string("images", None, "of `pages`: the folder of its pictures")
_SPLIT = flags.DEFINE_string("split", "validation", "of `shards`")
_MAX_QUESTIONS = flags.DEFINE_integer(
    "max_questions", 0, "of `shards`, of each source; 0: all", lower_bound=0
)
_OUTPUT = flags.DEFINE_string("output", None, "where the results go", required=True)
_ASK = flags.DEFINE_string("ask", None, "asks this of every page, not the data set's own question")
_CONTROLS = flags.DEFINE_bool(
    "controls", True, "ask with other pages, blank and none; 4 times the time"
)
_PEERS = flags.DEFINE_bool("peers", False, "let OCR engines read the same pages")
_PICTURES = flags.DEFINE_bool("pictures", False, "write the pages beside the answers")
_MAX_NEW = flags.DEFINE_integer("max_new", 0, "tokens of an answer; 0: as the context holds")
_BEAMS = flags.DEFINE_integer("beams", 1, "of a beam search; 1: greedy")
_NO_REPEAT = flags.DEFINE_integer(
    "no_repeat", 0, "no answer has the same n tokens twice; 0 lets it"
)
_FIT = flags.DEFINE_enum("fit", "squash", FITS, "how a page fits the ViTDet tower")
_CLIP_FIT = flags.DEFINE_enum("clip_fit", "crop", FITS, "how a page fits the CLIP tower")
_BATCH = flags.DEFINE_integer("batch_size", 8, "questions answered at once", lower_bound=1)


def main() -> None:
    """Reads the questions, asks them, and writes the scores."""
    if _BENCHMARK.value != "pages":
        cli.refuse([_IMAGES], f"--benchmark={_BENCHMARK.value}")
    if _BENCHMARK.value != "shards":
        cli.refuse([_SPLIT, _MAX_QUESTIONS], f"--benchmark={_BENCHMARK.value}")
    runtime.initialize()
    writing = Writing(max_new=_MAX_NEW.value, beams=_BEAMS.value, no_repeat=_NO_REPEAT.value)
    sets = _read_sets()
    # Every evaluator checks its questions before the model is loaded.
    evaluators = [
        PageEvaluator(
            pages,
            batch_size=_BATCH.value,
            controls=_CONTROLS.value,
            elsewhere=[q for other in sets if other is not pages for q in other.questions],
        )
        for pages in sets
    ]
    tokenizer = TextTokenizer(_TOKENIZER.value or _MODEL.value)
    model = VisionLanguage.from_pretrained(_MODEL.value)
    views = views_of(model.config, fit=fit_named(_FIT.value), clip_fit=fit_named(_CLIP_FIT.value))
    generator = TextGenerator(model, tokenizer, views=views)

    def read(asked: Sequence[Asked]) -> list[str]:
        return [written.text for written in generator(asked, writing)]

    output = epath.Path(_OUTPUT.value)
    output.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {"environment": about.environment()}
    for pages, evaluator in zip(sets, evaluators):
        answers = evaluator.answers(read)
        results[pages.name] = evaluator.scored(answers)
        if _PEERS.value and pages.kind is Kind.TEXT:
            results[pages.name] |= score_peers(pages)
        files.write(output / f"{pages.name}.jsonl", _lines(pages, answers))
        if _PICTURES.value:
            for number, question in enumerate(pages.questions):
                save_png(output / pages.name / f"{number}.png", question.picture())
    (output / "results.md").write_text(as_markdown(results))
    files.write(output / "results.json", json.dumps(results, indent=1, allow_nan=False) + "\n")
    print(f"the results are in {output / 'results.md'}")


def _read_sets() -> list[PageSet]:
    data = _DATA.value
    if _BENCHMARK.value == "pages":
        if not _IMAGES.value:
            raise UserError("--benchmark=pages needs --images, the folder of its pictures")
        sets = read_pages(data, _IMAGES.value)
    elif _BENCHMARK.value == "docvqa":
        sets = read_docvqa(data)
    elif _BENCHMARK.value == "chartqa":
        sets = read_chartqa(data)
    elif _BENCHMARK.value == "sroie":
        sets = read_sroie(data)
    else:
        sets = read_shards(data, _SPLIT.value, most=_MAX_QUESTIONS.value)
    return sets if _ASK.value is None else [pages.asking(_ASK.value) for pages in sets]


def _lines(pages: PageSet, answers: dict[str, Answers]) -> str:
    """A JSON object a question."""
    lines = []
    for number, question in enumerate(pages.questions):
        said = {control: texts[number] for control, texts in answers.items()}
        asked = {"key": question.key, "question": question.question}
        lines.append(json.dumps(asked | {"answers": question.answers} | said, ensure_ascii=False))
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    cli.run(main)

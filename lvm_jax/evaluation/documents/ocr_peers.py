"""OCR engines that read the same pages, where they are installed: Tesseract and RapidOCR.

K: lines of a page; H, W: pixels.
"""

import io
import shutil
import subprocess
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from PIL import Image

from lvm_jax.errors import UserError
from lvm_jax.evaluation.base import Result
from lvm_jax.evaluation.documents.answer_scores import score
from lvm_jax.evaluation.documents.page_questions import PageSet, Picture

Engine = Callable[[Picture], str]


def score_peers(pages: PageSet) -> Result:
    """`tesseract/SCORE` and `rapidocr/SCORE` of a set of kind TEXT; `NAME` says why one is missing."""
    result: Result = {}
    for name, find in (("tesseract", find_tesseract), ("rapidocr", find_rapidocr)):
        engine = find()
        if isinstance(engine, str):
            result[name] = engine
            continue
        said = [engine(question.picture()) for question in pages.questions]
        found = score(pages.kind, said, [question.answers for question in pages.questions])
        result |= {f"{name}/{key}": value for key, value in found.items()}
    return result


def find_tesseract() -> Engine | str:
    """Tesseract with all of English and simplified Chinese that is installed; or why there is none."""
    program = shutil.which("tesseract")
    if not program:
        return "not installed: apt install tesseract-ocr tesseract-ocr-chi-sim"
    listed = subprocess.run([program, "--list-langs"], capture_output=True, text=True, check=False)
    languages = [name for name in ("eng", "chi_sim") if name in listed.stdout.split()]
    if not languages:
        return "has neither eng nor chi_sim: apt install tesseract-ocr tesseract-ocr-chi-sim"
    command = [program, "stdin", "stdout", "-l", "+".join(languages)]

    def read(picture: Picture) -> str:
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, format="PNG")
        done = subprocess.run(command, input=buffer.getvalue(), capture_output=True, check=False)
        if done.returncode:
            why = done.stderr.decode(errors="replace").strip().splitlines()
            raise UserError(
                f"tesseract ended with {done.returncode}: {why[-1] if why else 'silent'}"
            )
        return done.stdout.decode().strip()

    return read


def find_rapidocr() -> Engine | str:
    """RapidOCR's PP-OCR on ONNX Runtime, with its lines in reading order; or why there is none."""
    try:
        from rapidocr_onnxruntime import RapidOCR  # pyright: ignore[reportMissingImports]
    except ImportError:
        return "not installed: pip install rapidocr-onnxruntime"
    # Without the classifier of upside-down lines: on upright pages it turns some of them over.
    engine: Any = RapidOCR(use_cls=False)

    def read(picture: Picture) -> str:
        found, _ = engine(np.ascontiguousarray(picture[..., ::-1]))  # BGR, as OpenCV has it
        if not found:
            return ""
        corners = np.array([corners for corners, _, _ in found], np.float64)
        boxes = np.concatenate([corners.min(1), corners.max(1)], axis=1)
        return "\n".join(str(found[i][1]) for i in reading_order(boxes))

    return read


def reading_order(boxes_K4: Float[np.ndarray, "K 4"]) -> list[int]:
    """Lines of a page as one reads them (XY-cut, Nagy and Seth 1984).

    A page is cut into columns where white space runs from top to bottom, else in two where it is highest; and so on.
    """
    order: list[int] = []
    waiting = [list(range(len(boxes_K4)))]
    while waiting:
        members = waiting.pop()
        columns = _cut(boxes_K4, members, axis=0)
        parts = columns if len(columns) > 1 else _cut_once(boxes_K4, members)
        if len(parts) > 1:
            waiting += reversed(parts)
        else:
            order += sorted(members, key=lambda i: (boxes_K4[i, 1], boxes_K4[i, 0]))
    return order


def _cut(boxes_K4: np.ndarray, members: Sequence[int], axis: int) -> list[list[int]]:
    """The members in groups whose extents along an axis do not touch."""
    parts: list[list[int]] = []
    end = -np.inf
    for i in sorted(members, key=lambda i: boxes_K4[i, axis]):
        if boxes_K4[i, axis] > end:
            parts.append([])
        parts[-1].append(i)
        end = max(end, boxes_K4[i, axis + 2])
    return parts


def _cut_once(boxes_K4: np.ndarray, members: Sequence[int]) -> list[list[int]]:
    """What is above and what is below the highest white space; one group if there is none."""
    rows = _cut(boxes_K4, members, axis=1)
    if len(rows) < 2:
        return rows
    tops = [min(boxes_K4[i, 1] for i in row) for row in rows[1:]]
    ends = [max(boxes_K4[i, 3] for i in row) for row in rows[:-1]]
    first = 1 + int(np.argmax([top - end for top, end in zip(tops, ends)]))
    return [[i for row in part for i in row] for part in (rows[:first], rows[first:])]

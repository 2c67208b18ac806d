"""Models on the same episodes of a pool, as one table."""

import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_models import CODES, TOKENS

from lvm_jax.data.in_context.episodes import RowStyle
from lvm_jax.errors import UserError
from lvm_jax.evaluation.in_context.comparison import compare, parse_models
from lvm_jax.evaluation.in_context.scoring import PoolQuestions
from lvm_jax.inference.codec import decode_codes
from lvm_jax.pictures.pixels import to_uint8
from lvm_jax.reporting.comparison_page import BASELINES, as_markdown, write_page

sys.path.append(str(Path(__file__).parent.parent / "data"))
import pool_fakes


class Shower:
    """Draws the answer of the example, or the query's own picture."""

    names_classes = False

    def __init__(self, vqgan, copies):
        self.vqgan, self.model, self._copies = vqgan, vqgan, copies
        self.asked = []

    def draw_masks(self, prompts):
        self.asked += [prompt.picture.tolist() for prompt in prompts]
        shown = [
            p.examples[0].answer if self._copies and p.examples else p.picture for p in prompts
        ]
        return list(to_uint8(decode_codes(self.vqgan, np.stack(shown))))


def write(vqgan, folder, **fields):
    rng = np.random.default_rng(0)
    written = [
        pool_fakes.record(
            i,
            "ab"[i % 2],
            picture=rng.integers(0, CODES, TOKENS),
            mask=rng.integers(0, CODES, TOKENS),
            boxed=None,
            **fields,
        )
        for i in range(6)
    ]
    pool_fakes.write_pool(
        folder,
        written,
        split="validation",
        codebook_size=CODES,
        image_size=16,
        tokens_per_image=TOKENS,
        tokenizer_fingerprint=vqgan.fingerprint(),
    )
    return folder


@pytest.fixture
def pool(vqgan, tmp_path):
    return write(vqgan, tmp_path)


def test_without_examples_another_object_cannot_be_shown(vqgan, tmp_path):
    pool = write(vqgan, tmp_path, shows="one scene")
    asked = PoolQuestions(str(pool), RowStyle(shots=(1.0,)), batch_size=4)
    found = compare({"looks": Shower(vqgan, False)}, vqgan, asked, tmp_path)["looks"]
    assert "other_object/miou" not in found
    assert (tmp_path / "looks" / found["shown/best"]).exists()


def test_all_models_answer_the_same_episodes(vqgan, pool, tmp_path):
    asked = PoolQuestions(str(pool), RowStyle(shots=(0.0, 1.0)), batch_size=4)
    models = {"copies": Shower(vqgan, True), "looks": Shower(vqgan, False)}
    found = compare(models, vqgan, asked, tmp_path / "answers")
    assert models["copies"].asked == models["looks"].asked
    assert (
        found["copies"]["model/miou"] == found["copies"]["copy/miou"] == found["looks"]["copy/miou"]
    )
    assert found["copies"]["uses_other_query/miou"] == 0
    assert (tmp_path / "answers" / "looks" / "masks-best.png").exists()
    lines = as_markdown(found).splitlines()
    assert [line.split(" | ")[0].strip("| ") for line in lines] == [
        "model", "---", "copies", "looks", *BASELINES,
    ]  # fmt: skip
    header, copies = ([cell.strip() for cell in lines[i].split("|")[1:-1]] for i in (0, 2))
    row = dict(zip(header, copies, strict=True))
    assert row["mIoU"].startswith(f"{found['copies']['model/miou']:.3f} ± ")
    assert row["other examples"] == f"{found['copies']['other_examples/miou']:.3f}"
    assert int(row["parameters"].replace(",", "")) == found["copies"]["parameters"] > 0
    assert "other object" not in header
    page = write_page(found, "held-out ones", tmp_path).read_text()
    assert "6 episodes: held-out ones." in page
    assert page.count("data:image/png;base64,") == 6
    assert "Another query costs 0.00 ± 0.00 of IoU (flat)." in page
    with pytest.raises(UserError, match=r"0 models to compare"):
        compare({}, vqgan, asked)


def test_models_are_named_with_their_folders():
    assert parse_models(["a=x/y", "b=z"]) == {"a": "x/y", "b": "z"}
    for wrong in (["x"], ["=x"], ["a="], ["a=x", "a=y"]):
        with pytest.raises(UserError, match=r"--models has the entry .*: write NAME=FOLDER"):
            parse_models(wrong)

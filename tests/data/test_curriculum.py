"""A curriculum's batches are those of its stages, wherever a run begins; and the first records of a held-out split."""

import numpy as np
import pytest
from image_text_fakes import record, write_shards
from text_fakes import FOLDER

from lvm_jax.data.image_text.curriculum import Curriculum, check_stages
from lvm_jax.data.image_text.loader import ImageTextEvalLoader, ImageTextLoader, RowShape
from lvm_jax.data.image_text.views import View
from lvm_jax.data.text_tokenizer import TextTokenizer
from lvm_jax.errors import UserError

SHAPE = RowShape(20, max_images=1, image_tokens=3, views={"images": View(6, 9, fit="keep")})
STAGES = ((0, 1), (2, 2), (4, 0))


@pytest.fixture
def shards(tmp_path):
    return write_shards(tmp_path, [record(i, answer="x" * (i % 4 + 1)) for i in range(24)])


def curriculum(shards):
    def loader(longest):
        return ImageTextLoader(
            shards, "train", TextTokenizer(FOLDER), SHAPE, 6, 0, threads=0, max_characters=longest
        )

    return Curriculum([(begin, loader(longest)) for begin, longest in STAGES])


def lengths(batch):
    """Characters of each answer: what is learnt but for the line's end and EOS."""
    return batch["loss_weights"].sum(axis=1) - 2


def test_answers_get_longer_and_a_run_resumes_in_any_stage(shards):
    batches = curriculum(shards)
    whole = [next(batches) for _ in range(6)]
    assert [int(lengths(batch).max()) for batch in whole] == [1, 1, 2, 2, 4, 4]
    for begin in (1, 2, 5):
        resumed = curriculum(shards)
        resumed.set_state(begin)
        for step in range(begin, 6):
            batch = next(resumed)
            for name, array in whole[step].items():
                np.testing.assert_array_equal(batch[name], array)
        assert resumed.get_state() == 6
        resumed.close()
    batches.close()


@pytest.mark.parametrize("stages", [(), ((1, 0),), ((0, 1), (0, 2)), ((0, 1), (9, 2), (4, 3))])
def test_stages_out_of_order_are_refused(stages):
    with pytest.raises(UserError, match="the first at step 0, in order"):
        check_stages(stages)


def test_the_first_records_of_a_split_with_their_origins(tmp_path):
    kinds = [("lines", "charts")[i % 3 == 0] for i in range(7)]
    folder = write_shards(
        tmp_path, [record(i, source=kind) for i, kind in enumerate(kinds)], shards=1
    )
    loader = ImageTextEvalLoader(folder, "train", TextTokenizer(FOLDER), SHAPE, 4, max_records=5)
    assert len(loader) == 2
    found = list(loader.with_origins())
    sources = [loader.store.origins[n].source for _, origin in found for n in origin][:5]
    assert sources == kinds[:5]
    assert [int((batch["segment_ids"].max(axis=1) > 0).sum()) for batch, _ in found] == [4, 1]

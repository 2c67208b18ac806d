"""Loss weights of questions in packed and concatenated rows: only weights change, and only those of questions."""

import numpy as np
import pytest
from shard_fakes import CODEBOOK, PER_IMAGE

from lvm_jax.data.records import manifest as manifests
from lvm_jax.data.records.record_index import RecordIndex, index_path
from lvm_jax.data.sentences.row_assembly import label_weights
from lvm_jax.data.sentences.sentence_record import SentenceWriter
from lvm_jax.data.sentences.token_loader import TokenLoader
from lvm_jax.data.sentences.visual_sentence import VisualSentence
from lvm_jax.errors import UserError

SEQ_LEN = 7 * PER_IMAGE
BOS, EOS, PAD = CODEBOOK, CODEBOOK + 1, CODEBOOK + 2
# Layout -> which of its images answer; of those without questions, all.
LAYOUTS = {
    "image,depth,image,depth": {1, 3},
    "a,b,c,a,b,c": {2, 5},
    "image,depth": {1},
    "frame*4": {0, 1, 2, 3},
    "a,b,c": {0, 1, 2},  # a period that is not repeated
    "image": {0},
}
# An image's codes tell whether it answers: questions have codes below 8, answers from 8 on.
QUESTIONS = 8


def sentence(layout, seed, source="made"):
    n, answers = len(layout_roles(layout)), LAYOUTS[layout]
    rng = np.random.default_rng((seed, n))
    codes = [
        rng.integers(QUESTIONS, CODEBOOK, PER_IMAGE)
        if image in answers
        else rng.integers(0, QUESTIONS, PER_IMAGE)
        for image in range(n)
    ]
    return VisualSentence(np.uint16(codes), source, 2, f"{source}/{layout}/{seed}", layout)


def layout_roles(layout):
    return VisualSentence(np.zeros((0, 0), np.uint16), "", 2, "", layout).roles


def write(root, name="made", layouts=LAYOUTS, each=5):
    folder = manifests.dataset_folder(root, name, "1.0.0")
    folder.mkdir(parents=True)
    path = folder / manifests.shard_name(name, "train", 0, 1)
    with SentenceWriter(path) as writer:
        for seed in range(each):
            for layout in layouts:
                writer.add(sentence(layout, seed, name))
    total = {"sentences": each * len(layouts), "images": each}
    about = {"category": 2, "licence": "CC0", "origin": "made up"}
    manifests.Manifest(
        "0123456789abcdef", CODEBOOK, 16, PER_IMAGE,
        {"train": {**total, "shards": 1}}, {name: {**about, **total}},
    ).save(folder)  # fmt: skip
    return path


def batches(shards, weight, packing, steps=12, **options):
    with TokenLoader(
        shards, "train", SEQ_LEN, 4, 3, packing, question_weight=weight, threads=0, **options
    ) as loader:
        return [loader.batch_at(step) for step in range(steps)]


def check(plain, weighed, weight):
    """Codes of questions weigh `weight`, everything else as in plain batches."""
    asked = 0
    for one, other in zip(plain, weighed, strict=True):
        for name in ("tokens", "segment_ids", "positions"):
            np.testing.assert_array_equal(other[name], one[name])
        np.testing.assert_array_equal(one["loss_weights"], label_weights(one["segment_ids"]))
        questions = one["tokens"] < QUESTIONS
        expected = np.where(questions, np.float32(weight), 1) * one["loss_weights"]
        np.testing.assert_array_equal(other["loss_weights"], expected)
        assert other["loss_weights"].dtype == np.float32
        asked += np.sum(questions & (one["loss_weights"] > 0))
    return asked


@pytest.mark.parametrize("packing", ["packed", "concat"])
@pytest.mark.parametrize("weight", [0.1, 0.0, 2.0])
def test_questions_weigh_what_they_should_and_nothing_else_changes(tmp_path, packing, weight):
    folder = write(tmp_path).parent
    plain = batches(folder, 1.0, packing)
    assert check(plain, batches(folder, weight, packing), weight) > 100
    tokens = np.concatenate([batch["tokens"] for batch in plain])
    assert (tokens == EOS).any()
    # Rows are cut within images too, so a piece may begin or end there.
    if packing == "concat":
        assert ((tokens[:, 0] != BOS) & (tokens[:, 0] < CODEBOOK)).any()


@pytest.mark.parametrize("packing", ["packed", "concat"])
def test_long_sentences_that_are_split_keep_their_places(tmp_path, packing):
    folder = write(tmp_path, layouts=("a,b,c,a,b,c",)).parent
    with TokenLoader(
        folder, "train", 4 * PER_IMAGE, 2, 0, packing, long_sentences="split",
        question_weight=0.5, threads=0,
    ) as loader:  # fmt: skip
        found = [loader.batch_at(step) for step in range(6)]
    for batch in found:
        plain = label_weights(batch["segment_ids"])
        questions = batch["tokens"] < QUESTIONS
        expected = np.where(questions, np.float32(0.5), 1) * plain
        np.testing.assert_array_equal(batch["loss_weights"], expected)


def test_several_data_sets_in_a_mixture(tmp_path):
    write(tmp_path, "pairs", ("image,depth,image,depth", "image,depth"))
    write(tmp_path, "clips", ("frame*4", "image"))
    shards = [tmp_path / "pairs" / "1.0.0", tmp_path / "clips" / "1.0.0"]
    options = {"weights": {"pairs": 1, "clips": 3}}
    plain = batches(shards, 1.0, "packed", **options)
    assert check(plain, batches(shards, 0.25, "packed", **options), 0.25) > 20


@pytest.mark.parametrize("packing", ["packed", "concat"])
def test_holes_of_bad_records_weigh_nothing(tmp_path, packing, caplog):
    path = write(tmp_path)
    damaged = bytearray(path.read_bytes())
    at = RecordIndex.from_bytes(index_path(path).read_bytes()).offsets
    for record in (0, 9):
        damaged[int(at[record]) + 40] ^= 1
    path.write_bytes(damaged)
    plain = batches(path.parent, 1.0, packing)
    weighed = batches(path.parent, 0.1, packing)
    for one, other in zip(plain, weighed, strict=True):
        np.testing.assert_array_equal(other["tokens"], one["tokens"])
        questions = one["tokens"] < QUESTIONS
        expected = np.where(questions, np.float32(0.1), 1) * one["loss_weights"]
        np.testing.assert_array_equal(other["loss_weights"], expected)
        assert (other["loss_weights"][other["tokens"] == PAD] == 0).all()
    assert "skipped a bad record" in caplog.text


def test_without_a_weight_no_index_needs_periods(tmp_path, caplog):
    """Old indices are read as they are; the first loader that weighs questions makes them anew."""
    path = write(tmp_path)
    index = RecordIndex.from_bytes(index_path(path).read_bytes())
    columns = {name: column for name, column in index.columns.items() if name != "period"}
    old = type(index)(
        index.data_size, index.offsets, index.crcs, columns, index.origin, index.origins
    ).to_bytes()
    index_path(path).write_bytes(old)
    plain = batches(path.parent, 1.0, "packed")
    assert index_path(path).read_bytes() == old
    assert not caplog.records
    assert check(plain, batches(path.parent, 0.1, "packed"), 0.1) > 100
    assert "it is made anew" in caplog.text
    assert index_path(path).read_bytes() == index.to_bytes()


@pytest.mark.parametrize("weight", [-0.1, float("nan"), float("inf")])
def test_impossible_weights_are_refused(tmp_path, weight):
    folder = write(tmp_path).parent
    with pytest.raises(UserError, match=r"question_weight is .*: it must be a number, 0"):
        batches(folder, weight, "packed")

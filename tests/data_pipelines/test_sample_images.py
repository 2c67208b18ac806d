"""The pictures for a tokenizer are those of the sentences, and none of a held-out item is among the others."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pipe_fakes import FakePhotos, small_recipe

from data_pipelines import sample_images as sampling
from data_pipelines.build.composing import ItemCache, SentenceMaker
from data_pipelines.build.plan import plan
from data_pipelines.build.recipe import Entry, Recipe
from data_pipelines.sample_images import sample_images
from data_pipelines.sentences import SingleImage
from data_pipelines.sources import ImageFolder
from lvm_jax.data.images.sources import open_images, split_source
from lvm_jax.data.splits import read_held_out
from lvm_jax.errors import UserError


def pictures(folder: Path) -> dict[str, np.ndarray]:
    return {
        str(path.relative_to(folder)): np.asarray(Image.open(path))
        for path in sorted(folder.rglob("*.png"))
    }


def test_they_are_the_images_of_the_first_sentences_of_each_split(tmp_path):
    recipe = small_recipe()
    counts = sample_images(recipe, tmp_path / "out", images=60, workers=2)
    found = pictures(tmp_path / "out")
    assert counts["train"] + counts["validation"] == len(found)
    assert 48 <= counts["train"] < 48 + recipe.max_images
    assert 12 <= counts["validation"] < 12 + recipe.max_images
    maker = SentenceMaker(recipe, ItemCache())
    for split, planned in plan(recipe).items():
        expected = {}
        for number, sentence in enumerate(planned):
            made = maker.make(sentence, {})
            assert made is not None
            for place, image in enumerate(made.values):
                expected[f"{split}/{made.entry.name}/{number:06d}-{place:02d}.png"] = image
            if len(expected) == counts[split]:
                break
        mine = {name: image for name, image in found.items() if name.startswith(split)}
        assert mine.keys() == expected.keys()
        for name, image in expected.items():
            np.testing.assert_array_equal(mine[name], image)


def test_the_trainer_holds_out_the_validation_split_whole(tmp_path):
    sample_images(small_recipe(), tmp_path / "out", images=60)
    listed = read_held_out(tmp_path / "out" / sampling.HELD_OUT)
    train, held_out = split_source(open_images(tmp_path / "out"), tmp_path / "out", listed, 0.01)
    assert all("/validation/" in name for name in held_out.names)
    assert all("/train/" in name for name in train.names)


def test_near_duplicates_are_left_out_as_in_the_shards(tmp_path, capsys):
    """Without that, a copy of a held-out photograph was among the pictures to train on."""
    for i in range(12):
        noise = np.random.default_rng(i).integers(0, 256, (20, 30, 3), dtype=np.uint8)
        picture = Image.fromarray(noise)
        (tmp_path / "photos").mkdir(exist_ok=True)
        picture.save(tmp_path / "photos" / f"{i:02d}.png")
        copy = picture.resize((60, 40), Image.Resampling.BICUBIC)
        copy.save(tmp_path / "photos" / f"copy of {i:02d}.png")
    entry = Entry("photos", ImageFolder(str(tmp_path / "photos")), SingleImage())
    recipe = Recipe("photos", (entry,), 16, validation_fraction=0.3, near_duplicates=4)
    counts = sample_images(recipe, tmp_path / "out", images=1000)
    assert "left out 12 near-duplicates" in capsys.readouterr().out
    assert sum(counts.values()) == 12


def test_what_a_stopped_run_left_is_not_taken_for_a_sample(tmp_path, monkeypatch):
    def stopped(recipe, plans, workers):
        yield from list(make(recipe, plans, workers))[:3]
        raise KeyboardInterrupt

    make = sampling._made
    monkeypatch.setattr(sampling, "_made", stopped)
    with pytest.raises(KeyboardInterrupt):
        sample_images(small_recipe(), tmp_path / "out", images=1000)
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(sampling, "_made", make)
    sample_images(small_recipe(), tmp_path / "out", images=20)
    sample_images(small_recipe(), tmp_path / "again", images=20)
    assert pictures(tmp_path / "out").keys() == pictures(tmp_path / "again").keys()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    with pytest.raises(UserError, match="exists: remove it"):
        sample_images(small_recipe(), tmp_path / "out", images=20)


def test_bad_items_are_named_and_above_the_limit_an_error(tmp_path, capfd):
    broken = FakePhotos(bad=("photo003.png", "photo004.png"))
    sample_images(small_recipe(broken, max_bad_items=4), tmp_path / "out", images=1000)
    assert "skipped photos:photo003.png: it is truncated" in "".join(capfd.readouterr())
    with pytest.raises(
        UserError, match=r"items cannot be used, .*max_bad_items is 1; .*it is truncated"
    ):
        sample_images(small_recipe(broken, max_bad_items=1), tmp_path / "more", images=1000)

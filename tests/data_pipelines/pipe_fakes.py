"""Small sources, a small recipe and a small tokenizer for the tests of the pipeline."""

import dataclasses
import zlib

import numpy as np

from data_pipelines.build.recipe import Entry, Recipe
from data_pipelines.sentences import Pairs, SingleImage, Video
from data_pipelines.sources.base import BadItem
from lvm_jax.models.tokenizer.vqgan import VQGAN, VQGANConfig
from lvm_jax.weights import model_folder


@dataclasses.dataclass(frozen=True)
class FakePhotos:
    """Noise that depends on the key alone, with an annotation; the keys in `bad` cannot be read."""

    root: str = "nowhere"
    name: str = "photos"
    count: int = 20
    category: int = 2
    bad: tuple[str, ...] = ()
    licence: str = "CC0-1.0"
    origin: str = "drawn at random"

    def keys(self) -> list[str]:
        return [f"photo{i:03d}.png" for i in range(self.count)]

    def load(self, key: str) -> dict[str, list[np.ndarray]]:
        if key in self.bad:
            raise BadItem(key, "it is truncated")
        noise = np.random.default_rng(zlib.crc32(key.encode()))
        image = noise.integers(0, 256, (24, 20, 3), dtype=np.uint8)
        return {"image": [image], "depth": [255 - image]}


@dataclasses.dataclass(frozen=True)
class FakeVideos:
    """Clips of a few frames of noise."""

    name: str = "videos"
    category: int = 3
    licence: str = "CC-BY-4.0"
    origin: str = "drawn at random"

    def keys(self) -> list[str]:
        return [f"clip{i}" for i in range(6)]

    def load(self, key: str) -> dict[str, list[np.ndarray]]:
        noise = np.random.default_rng(zlib.crc32(key.encode()))
        return {"frame": list(noise.integers(0, 256, (9, 16, 16, 3), dtype=np.uint8))}


def small_recipe(photos: FakePhotos | None = None, **changes) -> Recipe:
    """40 pairs of photographs, 20 single ones and 12 clips, of which some are held out."""
    photos = photos or FakePhotos()
    singles = dataclasses.replace(photos, name="single_photos", category=1)
    entries = (
        Entry("depth", photos, Pairs("depth", 2), epochs=4, items="photos"),
        Entry("single", singles, SingleImage(crop=0.5), items="photos"),
        Entry("clips", FakeVideos(), Video(4, (1, 2)), epochs=2),
    )
    fields = {
        "train_shards": 3,
        "validation_fraction": 0.2,
        "max_images": 4,
        **changes,
    }
    return Recipe(name="small", entries=entries, image_size=16, **fields)


def save_tokenizer(folder, seed: int = 0) -> str:
    """A VQGAN of 16 x 16 images, 64 tokens each, with random weights."""
    config = VQGANConfig(
        resolution=16,
        hidden_channels=8,
        channel_mult=(1, 2),
        num_res_blocks=1,
        attn_resolutions=(),
        no_attn_mid_block=True,
        z_channels=4,
        num_embeddings=32,
        quantized_embed_dim=4,
        norm_groups=4,
    )
    # Drawn by NumPy: initializing a module leaf by leaf compiles dozens of programs.
    abstract = VQGAN.abstract(config)
    noise = np.random.default_rng(seed)
    tensors = {
        name: noise.normal(0, 0.3, variable.shape).astype(np.float32)
        for name, variable in model_folder.named_parameters(abstract).items()
    }
    model_folder.from_tensors(abstract, tensors, "noise").save_pretrained(folder)
    return str(folder)

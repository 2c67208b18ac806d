"""Small image-text data sets for the tests of the loader."""

import io

import numpy as np
from PIL import Image

from lvm_jax.data.image_text.conversation import Conversation, Turn
from lvm_jax.data.image_text.record import ImageText, ImageTextWriter
from lvm_jax.data.records import manifest as manifests


def picture(number, size=(6, 9)):
    """A file whose pixels tell which it is."""
    pixels = np.full((*size, 3), number % 256, np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def record(i, source="lines", answer=None, pictures=1, **changes):
    """Answer `i` to a question with some pictures."""
    answer = str(i) if answer is None else answer
    fields = {
        "images": tuple(picture(i) for _ in range(pictures)),
        "conversation": Conversation((Turn("<image>" * pictures + "\nA?", answer),)),
        "source": source,
        "key": f"{source}/{i:03d}",
        "licence": "CC0-1.0",
        "category": 2,
        "facets": ("font=Sans",),
        **changes,
    }
    return ImageText(**fields)


def write_shards(root, records, *, shards=2, split="train", raw=(), **changes):
    """Writes OUT/words/1.0.0; `raw` are further records as bytes."""
    folder = manifests.dataset_folder(root, "words", "1.0.0")
    folder.mkdir(parents=True, exist_ok=True)
    for shard in range(shards):
        name = manifests.shard_name("words", split, shard, shards)
        with ImageTextWriter(folder / name) as writer:
            for one in records[shard::shards]:
                writer.add(one)
            for content in raw[shard::shards]:
                writer.write(content)
    names = sorted({one.source for one in records})
    total = {"sentences": len(records), "images": sum(len(one.images) for one in records)}
    fields = {
        "tokenizer_fingerprint": "",
        "codebook_size": 0,
        "image_size": 0,
        "tokens_per_image": 0,
        "splits": {split: {**total, "shards": shards}},
        "sources": {
            name: {"category": 2, "licence": "CC0-1.0", "origin": "drawn", **total}
            for name in names
        },
        "encoding": "image_text",
        **changes,
    }
    manifests.Manifest(**fields).save(folder)
    return folder

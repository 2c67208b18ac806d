"""Small pools, whose codes tell which record they are of."""

import numpy as np

from lvm_jax.data.in_context.pool_record import PoolRecord, PoolWriter
from lvm_jax.data.in_context.sequences import SequenceFormat
from lvm_jax.data.in_context.words import WordsFormat
from lvm_jax.data.records import manifest as manifests
from lvm_jax.vocabulary import Vocabulary

CODES, PER_IMAGE = 512, 24


class Letters:
    """A text tokenizer whose ids are code points."""

    def encode(self, text):
        return [ord(letter) for letter in text]

    def decode(self, ids):
        return "".join(map(chr, ids))


VOCABULARY = Vocabulary.unified(text=128, image=CODES, bins=11)
FORM = SequenceFormat(WordsFormat(VOCABULARY, Letters()), PER_IMAGE, category_room=8)


def record(i, class_name="disc", source="shapes", **changes):
    """Record `i`: its first code is i, of its mask i + 1, and it shows scene i."""
    codes = np.full(PER_IMAGE, i)
    fields = {
        "picture": codes,
        "class_name": class_name,
        "shows": f"scene{i}",
        "source": source,
        "key": f"{source}/{i:03d}",
        "licence": "CC0-1.0",
        "mask": codes + 1,
        "boxed": codes + 2,
        "caption": f"no {i}",
        "boxes": ((0.0, 0.25, 0.5, 1.0),),
        "area": 12,
        "category": 2,
        **changes,
    }
    return PoolRecord(**fields)


def records(count=30, classes=("disc", "star", "ring"), **changes):
    """Records of classes in turn."""
    return [record(i, classes[i % len(classes)], **changes) for i in range(count)]


def write_pool(root, written, *, name="pool", shards=2, split="train", raw=(), **changes):
    """Writes OUT/NAME/1.0.0; `raw` are further records as bytes."""
    folder = manifests.dataset_folder(root, name, "1.0.0")
    folder.mkdir(parents=True, exist_ok=True)
    for shard in range(shards):
        with PoolWriter(folder / manifests.shard_name(name, split, shard, shards)) as writer:
            for one in written[shard::shards]:
                writer.add(one)
            for content in raw[shard::shards]:
                writer.write(content)
    total = {"sentences": len(written), "images": 2 * len(written)}
    fields = {
        "tokenizer_fingerprint": "0123456789abcdef",
        "codebook_size": CODES,
        "image_size": 16,
        "tokens_per_image": PER_IMAGE,
        "splits": {split: {**total, "shards": shards}},
        "sources": {
            source: {"category": 2, "licence": "CC0-1.0", "origin": "drawn", **total}
            for source in sorted({one.source for one in written})
        },
        "encoding": "pool",
        **changes,
    }
    manifests.Manifest(**fields).save(folder)
    return folder

import numpy as np

from lvm_jax.data.records import manifest as manifests
from lvm_jax.data.sentences.sentence_record import SentenceWriter
from lvm_jax.data.sentences.visual_sentence import VisualSentence

CODEBOOK = 32
PER_IMAGE = 4


def sentence(i, n_images, source="scenes", category=3):
    """Codes that tell which sentence and image they are of, as far as they fit the codebook."""
    codes = np.random.default_rng((i, n_images)).integers(0, CODEBOOK, (n_images, PER_IMAGE))
    return VisualSentence(
        codes.astype(np.uint16), source, category, f"{source}/{i:05d}", f"frame*{n_images}"
    )


def write_dataset(root, name="scenes", splits=None, shards=2, records=None, **changes):
    """Writes OUT/NAME/1.0.0 with `splits` {name: images of each sentence}; returns the sentences by split."""
    folder = manifests.dataset_folder(root, name, "1.0.0")
    folder.mkdir(parents=True)
    written, infos = {}, {}
    for split, counts in (splits or {"train": [1, 3, 2, 4, 1, 1, 2, 3]}).items():
        sentences = [sentence(i, n, source=name) for i, n in enumerate(counts)]
        for shard in range(shards):
            part = sentences[
                len(sentences) * shard // shards : len(sentences) * (shard + 1) // shards
            ]
            with SentenceWriter(
                folder / manifests.shard_name(name, split, shard, shards)
            ) as writer:
                for s in part:
                    if records is None:
                        writer.add(s)
                    else:
                        writer.write(records(s))
        written[split] = sentences
        infos[split] = {"sentences": len(counts), "images": sum(counts), "shards": shards}
    total = {k: sum(info[k] for info in infos.values()) for k in ("sentences", "images")}
    fields = {
        "tokenizer_fingerprint": "0123456789abcdef",
        "codebook_size": CODEBOOK,
        "image_size": 16,
        "tokens_per_image": PER_IMAGE,
        "splits": infos,
        "sources": {name: {"category": 3, "licence": "CC0", "origin": "rendered", **total}},
    } | changes
    manifests.Manifest(**fields).save(folder)
    return folder, written

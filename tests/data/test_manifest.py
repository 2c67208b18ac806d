import dataclasses
import json

import pytest

from lvm_jax.data.records import manifest as manifests
from lvm_jax.data.records.manifest import Manifest
from lvm_jax.data.sentences.sentence_record import SENTENCES
from lvm_jax.errors import UserError

MANIFEST = Manifest(
    tokenizer_fingerprint="0123456789abcdef",
    codebook_size=8192,
    image_size=256,
    tokens_per_image=256,
    splits={"train": {"sentences": 3, "images": 12, "shards": 2}},
    sources={
        "coco": {
            "category": 2,
            "licence": "CC-BY-4.0",
            "origin": "cocodataset.org",
            "sentences": 3,
            "images": 12,
        }
    },
)


def test_round_trip(tmp_path):
    MANIFEST.save(tmp_path)
    assert Manifest.load(tmp_path) == MANIFEST
    assert [p.name for p in tmp_path.iterdir()] == ["manifest.json"]


def test_unusable_files(tmp_path):
    with pytest.raises(UserError, match=r"manifest\.json does not exist"):
        Manifest.load(tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(UserError, match="is not JSON"):
        Manifest.load(tmp_path)
    content = dataclasses.asdict(MANIFEST)
    (tmp_path / "manifest.json").write_text(json.dumps(content | {"codebooksize": 1}))
    with pytest.raises(UserError, match="did you mean 'codebook_size'"):
        Manifest.load(tmp_path)
    (tmp_path / "manifest.json").write_text(
        json.dumps(content | {"splits": {"train": {"sentences": 3}}})
    )
    with pytest.raises(UserError, match=r"splits\.train is {'sentences': 3}: it must have"):
        Manifest.load(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"splits": [1]}, r"splits is \[1\]: it must be a mapping"),
        (
            {"splits": {"train": 3}},
            r"splits\.train is 3: it must have the keys sentences, images, shards",
        ),
        (
            {"splits": {"train": {"sentences": "3", "images": 12, "shards": 2}}},
            r"splits\.train\.sentences is '3' \(str\): it must be of type int",
        ),
    ],
)
def test_counts_of_another_type_are_told(tmp_path, change, message):
    content = dataclasses.asdict(MANIFEST) | change
    (tmp_path / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=message):
        Manifest.load(tmp_path)


def test_check_compatible_says_both_values_and_the_fix():
    manifests.check_compatible(
        MANIFEST, codebook_size=8192, tokenizer_fingerprint="0123456789abcdef", tokens_per_image=256
    )
    manifests.check_compatible(MANIFEST)
    with pytest.raises(UserError) as error:
        manifests.check_compatible(
            MANIFEST, codebook_size=512, tokenizer_fingerprint="ff", tokens_per_image=64
        )
    for words in ("8192", "512", "0123456789abcdef", "'ff'", "256", "64", "build them again"):
        assert words in str(error.value)


def test_merge_adds_counts():
    other = dataclasses.replace(
        MANIFEST,
        splits={**MANIFEST.splits, "test": {"sentences": 1, "images": 1, "shards": 1}},
        sources={
            **MANIFEST.sources,
            "clips": {"category": 3, "licence": "CC0", "origin": "x", "sentences": 1, "images": 1},
        },
    )
    merged = manifests.merge({"a": MANIFEST, "b": other})
    assert merged.splits["train"] == {"sentences": 6, "images": 24, "shards": 4}
    assert merged.splits["test"] == other.splits["test"]
    assert (merged.sources["coco"]["images"], merged.sources["clips"]["images"]) == (24, 1)
    assert MANIFEST.splits["train"]["sentences"] == 3


@pytest.mark.parametrize(
    "change",
    [
        {"tokenizer_fingerprint": "ff"},
        {"codebook_size": 1},
        {"tokens_per_image": 1},
        {"image_size": 1},
    ],
)
def test_merge_refuses_another_tokenizer(change):
    with pytest.raises(
        UserError, match=f"{next(iter(change))} is .* in /a and .* in /b: train on shards of one"
    ):
        manifests.merge({"/a": MANIFEST, "/b": dataclasses.replace(MANIFEST, **change)})


def test_merge_refuses_two_licences_of_one_source():
    coco = MANIFEST.sources["coco"] | {"licence": "CC0"}
    with pytest.raises(
        UserError, match=r"licence 'CC-BY-4\.0' in one data set and 'CC0' in another"
    ):
        manifests.merge({"a": MANIFEST, "b": dataclasses.replace(MANIFEST, sources={"coco": coco})})


def test_names():
    assert manifests.shard_name("coco", "train", 3, 16) == "uvd_coco-train.tfrecord-00003-of-00016"
    assert str(manifests.dataset_folder("/out", "coco", "1.0.0")) == "/out/coco/1.0.0"
    for args in [
        ("Coco", "train", 0, 1),
        ("co-co", "train", 0, 1),
        ("coco", "", 0, 1),
        ("coco", "train", 1, 1),
    ]:
        with pytest.raises(UserError):
            manifests.shard_name(*args)
    with pytest.raises(UserError, match="version"):
        manifests.dataset_folder("/out", "coco", "1")
    with pytest.raises(UserError, match=r"name '\.\./coco': use lower-case letters"):
        manifests.dataset_folder("/out", "../coco", "1.0.0")


def test_tfds_metadata(tmp_path):
    for i, size in enumerate((10, 20)):
        (tmp_path / f"uvd_coco-train.tfrecord-0000{i}-of-00002").write_bytes(b"x" * size)
    manifests.write_tfds_metadata(tmp_path, "coco", "1.0.0", {"train": [3, 4]}, SENTENCES)
    info = json.loads((tmp_path / "dataset_info.json").read_text())
    assert (info["name"], info["version"], info["fileFormat"]) == ("uvd_coco", "1.0.0", "tfrecord")
    assert info["splits"] == [
        {
            "name": "train",
            "numBytes": "30",
            "shardLengths": ["3", "4"],
            "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
        }
    ]
    features = json.loads((tmp_path / "features.json").read_text())["featuresDict"]["features"]
    assert set(features) == {"codes", "source", "category", "key", "layout"}
    with pytest.raises(UserError, match="00000-of-00003 does not exist"):
        manifests.write_tfds_metadata(tmp_path, "coco", "1.0.0", {"train": [1, 1, 1]}, SENTENCES)

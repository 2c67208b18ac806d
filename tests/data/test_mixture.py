import numpy as np
import pytest
from shard_fakes import PER_IMAGE, write_dataset

from lvm_jax.data.mixture import Origin, make_mixture, parse_weights
from lvm_jax.data.sentences.buckets import BucketTable
from lvm_jax.data.sentences.packing import PackedRows
from lvm_jax.data.sentences.sentence_store import SentenceStore
from lvm_jax.data.sentences.token_loader import TokenLoader
from lvm_jax.errors import UserError

SEQ_LEN = 4 * PER_IMAGE
ORIGINS = [
    Origin("web", "laion", "unlabelled_image"),
    Origin("web", "video", "unlabelled_video"),
    Origin("lab", "coco", "annotated_image"),
]
IMAGES = np.array([600, 300, 100])


@pytest.fixture
def corpus(tmp_path):
    rng = np.random.default_rng(0)
    write_dataset(tmp_path, "clips", {"train": rng.integers(1, 5, 90).tolist()}, shards=3)
    write_dataset(tmp_path, "turns", {"train": rng.integers(1, 3, 20).tolist()}, shards=1)
    return tmp_path


def load(corpus, weights, **kwargs):
    arguments = {"seq_len": SEQ_LEN, "global_batch": 8, "seed": 3, "threads": 0} | kwargs
    return TokenLoader(corpus, "train", weights=weights, **arguments)


def whole_sentences(rows, first, count):
    """The sentences that are drawn, without those that only fill the end of a row."""
    return np.concatenate(
        [
            row.sentences[: len(row.sentences) - row.template.repeats]
            for row in rows.rows(first, count)
        ]
    )


def test_a_weight_is_a_share_of_the_images():
    """Of any part of the series, and every sentence of a data set is drawn as often as the others, give or take one."""
    rng = np.random.default_rng(0)
    images = np.concatenate([rng.integers(1, 5, 3000), rng.integers(1, 17, 200)])
    group = np.repeat([0, 1], [3000, 200]).astype(np.uint16)
    available = np.bincount(group, weights=images)
    origins = [Origin("a", "a", "unlabelled_image"), Origin("b", "b", "unlabelled_video")]
    mixture = make_mixture(origins, available.astype(int), {"b": 3.0, "a": 1.0})
    assert mixture.names == ("b", "a")
    assert mixture.group_of == (1, 0)
    group = 1 - group
    rates = mixture.rates(available.astype(int))
    table = BucketTable((images * PER_IMAGE).astype(np.uint32), group, rates)
    rows = PackedRows(table, 16 * PER_IMAGE + 1, PER_IMAGE, seed=0)
    n = rows.rows_per_pass
    for first, count in ((0, 2000), (5 * n // 2, 2000), (0, n), (0, 3 * n)):
        drawn = whole_sentences(rows, first, count)
        share = images[drawn][group[drawn] == 0].sum() / images[drawn].sum()
        assert share == pytest.approx(0.75, abs=0.01)
    times = np.bincount(drawn, minlength=len(images))
    for g in range(2):
        passes = times[group == g].mean()
        for n in np.unique(images[group == g]):
            kind = times[(group == g) & (images == n)]
            assert np.ptp(kind) <= 1
            assert kind.mean() == pytest.approx(passes, rel=0.02)


def test_each_epoch_of_a_kind_has_an_order_of_its_own():
    table = BucketTable(np.full(100, PER_IMAGE, np.uint32), np.zeros(100, np.uint16), np.ones(1))

    def draws(first, salt):
        zeros = np.zeros(100, int)
        return table.sentence(zeros, zeros + 100, first + np.arange(100), zeros + salt, 7).tolist()

    orders = [draws(0, 0), draws(100, 0), draws(0, 1)]
    assert all(sorted(order) == list(range(100)) for order in orders)
    assert len({tuple(order) for order in [*orders, list(range(100))]}) == 4


def test_epochs_are_counted_by_data_set(corpus):
    store = SentenceStore(corpus, "train")
    dataset = np.array([store.origins[o].dataset == "turns" for o in store.origin])
    images = store.lengths // PER_IMAGE
    with load(corpus, {"turns": 1, "clips": 1}) as loader:
        steps = loader.rows_per_pass // 8
        drawn = whole_sentences(loader._rows, 0, steps * 8)
        for name, here in (("turns", dataset), ("clips", ~dataset)):
            passes = images[drawn][here[drawn]].sum() / images[here].sum()
            assert loader.epochs(steps)[name] == pytest.approx(passes, rel=0.02)
        assert loader.epochs(2 * steps)["turns"] == pytest.approx(2 * loader.epochs(steps)["turns"])
    with load(corpus, None) as plain:
        everything = plain.epochs(1000)
        assert everything == pytest.approx(dict.fromkeys(everything, 8000 / plain.rows_per_pass))


@pytest.mark.parametrize("packing", ["packed", "concat"])
def test_a_weighted_batch_does_not_depend_on_hosts_or_on_where_it_is_resumed(corpus, packing):
    weights = {"turns": 2, "clips": 1}
    with load(corpus, weights, packing=packing) as whole:
        for step in (0, 3, 1_000_000):
            expected = whole.batch_at(step)
            for hosts in (1, 2, 4, 8):
                parts = []
                for host in range(hosts):
                    with load(
                        corpus, weights, packing=packing, process_index=host, process_count=hosts
                    ) as part:
                        part.set_state(step)
                        parts.append(next(part))
                for key, value in expected.items():
                    joined = np.concatenate([part[key] for part in parts])
                    assert joined.tobytes() == value.tobytes()


@pytest.mark.parametrize("packing", ["packed", "concat"])
def test_a_weight_of_0_leaves_its_sentences_out(corpus, packing):
    with load(corpus, {"turns": 0, "clips": 1}, packing=packing) as loader:
        assert loader.epochs(30)["turns"] == 0
        assert loader.epochs(30)["clips"] > 0
        drawn = {i for row in loader._rows.rows(0, 240) for i in row.sentences.tolist()}
        left_out = [origin.dataset == "turns" for origin in loader._store.origins]
        assert drawn
        assert not any(left_out[loader._store.origin[i]] for i in drawn)


def test_weights_change_the_batches(corpus):
    batches = []
    for weights in (None, {"turns": 1, "clips": 1}, {"turns": 1, "clips": 9}):
        with load(corpus, weights) as loader:
            batches.append(loader.batch_at(0)["tokens"].tobytes())
    assert len(set(batches)) == 3


@pytest.mark.parametrize(
    ("weights", "group_of"),
    [
        ({"web": 1, "lab": 2}, (0, 0, 1)),
        ({"coco": 1, "laion": 2, "video": 3}, (1, 2, 0)),
        ({"source/coco": 1, "dataset/web": 1}, (1, 1, 0)),
        (
            {
                "category/unlabelled_image": 1,
                "category/annotated_image": 1,
                "category/unlabelled_video": 8,
            },
            (0, 2, 1),
        ),
        ({"laion": 1, "category/unlabelled_video": 1, "lab": 1}, (0, 1, 2)),
        ({}, (0, 0, 0)),
    ],
)
def test_names(weights, group_of):
    assert make_mixture(ORIGINS, IMAGES, weights).group_of == group_of


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"web": 0, "lab": 0}, r"all weights are 0 \(web, lab\): at least one must be above 0"),
        ({"web": -1.5, "lab": 1}, "weight of 'web' is -1.5"),
        ({"web": float("nan"), "lab": 1}, "weight of 'web' is nan"),
        ({"web": float("inf"), "lab": 1}, "weight of 'web' is inf"),
        ({"webb": 1, "lab": 1}, "'webb' names nothing in the shards: they have coco, lab, laion"),
        ({"category/video": 1, "web": 1}, "category/unlabelled_video"),
        ({"web": 1}, r"source 'coco' \(annotated_image\) of the data set 'lab' has no weight"),
        ({"web": 1, "laion": 1, "lab": 1}, "'web' and 'laion' both hold source 'laion'"),
    ],
)
def test_wrong_weights(weights, message):
    with pytest.raises(UserError, match=message) as error:
        make_mixture(ORIGINS, IMAGES, weights)
    assert "\n" not in str(error.value)


def test_a_name_of_two_meanings():
    origins = [
        Origin("coco", "boxes", "annotated_image"),
        Origin("mixed", "coco", "annotated_image"),
    ]
    with pytest.raises(UserError, match="write 'dataset/coco' or 'source/coco'"):
        make_mixture(origins, np.array([1, 1]), {"coco": 1})
    found = make_mixture(origins, np.array([1, 1]), {"dataset/coco": 1, "source/coco": 1})
    assert found.group_of == (0, 1)
    # a data set whose only source has its name
    assert make_mixture(
        [Origin("a", "a", "unlabelled_image")], np.array([1]), {"a": 1}
    ).group_of == (0,)


def test_a_weighted_part_without_a_sentence():
    with pytest.raises(UserError, match="'lab' has a weight, but no sentence in this split"):
        make_mixture(ORIGINS, np.array([600, 300, 0]), {"web": 1, "lab": 1})
    # one without a sentence needs no weight
    assert make_mixture(ORIGINS, np.array([600, 300, 0]), {"web": 1}).names == ("web",)


def test_parse_weights():
    assert parse_weights("") == {}
    assert parse_weights(" a=1, category/object_3d = 0.5 ") == {"a": 1.0, "category/object_3d": 0.5}
    for text, message in (
        ("a", "write NAME=NUMBER"),
        ("a=b", "NAME=NUMBER"),
        ("=1", "NAME=NUMBER"),
    ):
        with pytest.raises(UserError, match=message):
            parse_weights(text)
    with pytest.raises(UserError, match="'a' twice"):
        parse_weights("a=1,a=2")


def test_several_folders_in_one_text(corpus):
    with load(f"{corpus}/clips, {corpus}/turns/1.0.0", None) as loader:
        assert set(loader.epochs(1)) == {"clips", "turns"}


def test_one_of_two_data_sets_is_empty(tmp_path):
    write_dataset(tmp_path, "clips", {"train": [1, 2]})
    write_dataset(tmp_path, "turns", {"train": []})
    with pytest.raises(UserError, match=r"split 'train' of .*turns.* has no sentence"):
        SentenceStore(tmp_path, "train")

import collections

import numpy as np
import pytest
from shard_fakes import CODEBOOK, PER_IMAGE, write_dataset

from lvm_jax.data.dealing import EvenDealer
from lvm_jax.data.records.record_store import RecordStore
from lvm_jax.data.sentences.buckets import BucketTable
from lvm_jax.data.sentences.token_loader import EvalLoader, TokenLoader
from lvm_jax.data.step_loader import shuffled_index
from lvm_jax.errors import UserError

SEQ_LEN = 4 * PER_IMAGE
KEYS = ("tokens", "segment_ids", "positions", "loss_weights")


@pytest.fixture
def corpus(tmp_path):
    counts = np.random.default_rng(0).integers(1, 5, 60).tolist()
    return write_dataset(
        tmp_path / "shards", splits={"train": counts, "validation": [1, 4, 2]}, shards=3
    )


def load(folder, batch=8, packing="packed", seed=7, **kwargs):
    return TokenLoader(folder, "train", SEQ_LEN, batch, seed, packing, **kwargs)


def take(loader, steps):
    with loader:
        return [next(loader) for _ in range(steps)]


def same(a, b):
    return all(
        a[key].tobytes() == b[key].tobytes() and a[key].dtype == b[key].dtype for key in KEYS
    )


@pytest.mark.parametrize("packing", ["packed", "concat"])
def test_an_epoch_holds_every_sentence_once(corpus, packing):
    folder, written = corpus
    loader = load(folder, batch=1, packing=packing)
    batches = take(loader, loader.rows_per_pass)
    assert batches[0]["tokens"].shape == (1, SEQ_LEN + 1)
    dtypes = dict.fromkeys(KEYS, np.int32) | {"loss_weights": np.float32}
    assert {key: batches[0][key].dtype for key in KEYS} == dtypes
    tokens = np.concatenate([b["tokens"][0] for b in batches])
    segments = np.concatenate([b["segment_ids"][0] for b in batches])
    assert loader.fill == pytest.approx((segments > 0).mean())
    assert ((tokens == CODEBOOK + 2) == (segments == 0)).all()
    sentences = [tuple(s.codes.reshape(-1).tolist()) for s in written["train"]]
    if packing == "concat":
        codes = np.concatenate(sentences)
        np.testing.assert_array_equal(np.sort(tokens[tokens < CODEBOOK]), np.sort(codes))
        assert loader.repeated == 0
        return
    found, again = collections.Counter(), 0
    for batch in batches:
        whole, last = split_row(batch["tokens"][0], batch["segment_ids"][0])
        found.update(whole)
        if last is not None:  # one a row, the beginning of a sentence
            again += np.sum(batch["segment_ids"] == batch["segment_ids"].max())
            assert any(s[: len(last)] == last for s in sentences)
    assert found == collections.Counter(sentences)
    assert loader.repeated == pytest.approx(again / tokens.size)


def split_row(tokens, segments):
    """The codes of a row's sentences, and of the one that fills its end, if there is one."""
    parts = [tokens[segments == s] for s in range(1, segments.max() + 1)]
    codes = [tuple(part[part < CODEBOOK].tolist()) for part in parts]
    if len(parts) == 1 or sum(map(len, parts)) == SEQ_LEN:  # one token is no room
        return codes, None
    return codes[:-1], codes[-1]


@pytest.mark.parametrize("packing", ["packed", "concat"])
@pytest.mark.parametrize("hosts", [2, 4, 8])
def test_the_global_batch_does_not_depend_on_the_number_of_hosts(corpus, packing, hosts):
    folder, _ = corpus
    alone = take(load(folder, packing=packing), 12)
    parts = [
        take(load(folder, packing=packing, process_index=i, process_count=hosts), 12)
        for i in range(hosts)
    ]
    for step, whole in enumerate(alone):
        joined = {key: np.concatenate([part[step][key] for part in parts]) for key in KEYS}
        assert same(joined, whole)


@pytest.mark.parametrize("threads", [0, 1, 4])
def test_resume_is_exact(corpus, threads):
    folder, _ = corpus
    whole = take(load(folder), 10)
    first = load(folder, threads=threads)
    for step in range(6):
        assert same(next(first), whole[step])
    state = first.get_state()
    assert state == 6
    first.close()
    with load(folder, threads=threads) as second:
        second.set_state(state)
        for step in range(6, 10):
            assert same(next(second), whole[step])
        second.set_state(2)
        assert same(next(second), whole[2])
        assert second.get_state() == 3


@pytest.mark.parametrize("packing", ["packed", "concat"])
def test_resume_a_million_steps_on_does_the_work_of_one_step(corpus, packing, monkeypatch):
    folder, _ = corpus
    work = collections.Counter()

    def counted(owner, name):
        original = getattr(owner, name)

        def call(*args):
            work[name] += 1
            return original(*args)

        monkeypatch.setattr(owner, name, call)

    counted(RecordStore, "read")
    counted(BucketTable, "sentence")
    counted(EvenDealer, "before")
    with load(folder, packing=packing, threads=0) as loader:
        loader.set_state(1_000_000)
        batch = next(loader)
        assert loader.get_state() == 1_000_001
        assert work["read"] == 1  # the sentences of the batch
        assert work["sentence"] <= 2  # blocks of rows
        assert work["before"] < 100
        assert same(batch, loader.batch_at(1_000_000))
        with pytest.raises(UserError, match="data state is -1"):
            loader.set_state(-1)


def test_epochs_and_seeds_differ(corpus):
    folder, _ = corpus
    loader = load(folder, batch=1)
    rows = loader.rows_per_pass

    def sentences(loader, first):
        batches = [loader.batch_at(first + i) for i in range(rows)]
        return [c for b in batches for c in split_row(b["tokens"][0], b["segment_ids"][0])[0]]

    first, second = sentences(loader, 0), sentences(loader, rows)
    assert first != second
    assert sorted(first) == sorted(second)
    other = TokenLoader(folder, "train", SEQ_LEN, 1, 8)
    assert sentences(other, 0) not in (first, second)
    for each in (loader, other):
        each.close()


@pytest.mark.parametrize("length", [1, 2, 7, 1000])
def test_shuffled_index_permutes_each_epoch(length):
    epochs = [[shuffled_index(e * length + i, length, 3) for i in range(length)] for e in range(3)]
    for epoch in epochs:
        assert sorted(epoch) == list(range(length))
    if length == 1000:
        assert epochs[0] != epochs[1]
        # no trace of another seed's epochs
        assert [shuffled_index(i, length, 4) for i in range(length)] != epochs[1]


def test_a_batch_larger_than_an_epoch(tmp_path):
    folder, _ = write_dataset(tmp_path, splits={"train": [4]}, shards=1)
    (batch,) = take(load(folder, batch=3), 1)
    assert batch["tokens"].shape == (3, SEQ_LEN + 1)
    assert (batch["tokens"] == batch["tokens"][0]).all()


def test_a_bad_record_is_padding_until_the_limit(corpus, caplog):
    folder, _ = corpus
    with load(folder, batch=1) as sound:
        rows = sound.rows_per_pass
        before = [sound.batch_at(i) for i in range(rows)]
    shard = folder / "uvd_scenes-train.tfrecord-00001-of-00003"
    data = bytearray(shard.read_bytes())
    data[30] ^= 1
    shard.write_bytes(data)
    with load(folder, batch=1, max_corrupt=1) as loader:
        after = [loader.batch_at(i) for i in range(rows)]
        assert loader.corrupt == 1
    changed = [i for i in range(rows) if not same(before[i], after[i])]
    assert len(changed) == 1
    old, new = before[changed[0]], after[changed[0]]
    hole = old["tokens"] != new["tokens"]
    assert (new["segment_ids"][hole] == 0).all()
    assert (new["tokens"][hole] == CODEBOOK + 2).all()
    assert "record 0 of" in caplog.text
    assert shard.name in caplog.text

    with load(folder, batch=1, max_corrupt=0) as strict:
        for _ in range(2):  # asking again does not step over it
            strict.set_state(changed[0])
            with pytest.raises(UserError, match="the limit of 0"):
                next(strict)
            assert strict.get_state() == changed[0]
            with pytest.raises(UserError, match="the limit of 0"):
                next(strict)


def test_reading_twice_past_an_error_gives_the_error_again(corpus, monkeypatch):
    folder, _ = corpus
    whole = take(load(folder), 3)
    failing = True
    original = TokenLoader.batch_at

    def batch_at(self, step):
        if failing and step == 1:
            raise OSError("disk")
        return original(self, step)

    monkeypatch.setattr(TokenLoader, "batch_at", batch_at)
    with load(folder) as loader:
        assert same(next(loader), whole[0])
        with pytest.raises(OSError, match="disk"):
            next(loader)
        failing = False
        assert same(next(loader), whole[1])
        assert same(next(loader), whole[2])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch": 6, "process_count": 4}, "global_batch is 6: .* 4 processes"),
        ({"batch": 0}, "global_batch is 0"),
        ({"process_index": 2, "process_count": 2}, r"process_index is 2: it must be in 0\.\.1"),
        ({"packing": "pack"}, "'packed' or 'concat'"),
        ({"seed": -1}, "seed is -1: it must be from 0 to"),
        ({"seed": 1 << 64, "packing": "concat"}, "seed is 18446744073709551616: it must be"),
    ],
)
def test_wrong_arguments(corpus, change, message):
    with pytest.raises(UserError, match=message):
        load(corpus[0], **change)


def test_a_sentence_longer_than_a_row(corpus):
    with pytest.raises(UserError, match="a row holds 8 after its BOS"):
        TokenLoader(corpus[0], "train", 8, 1, 0)
    with TokenLoader(corpus[0], "train", 8, 1, 0, long_sentences="split") as loader:
        assert next(loader)["tokens"].shape == (1, 9)


@pytest.mark.parametrize("hosts", [1, 2])
def test_evaluation_sees_the_split_once_in_order(corpus, hosts):
    folder, written = corpus
    loaders = [EvalLoader(folder, "validation", SEQ_LEN, 2, i, hosts) for i in range(hosts)]
    for _ in range(2):  # and again
        batches = [list(loader) for loader in loaders]
        assert [len(b) for b in batches] == [2] * hosts == [len(loader) for loader in loaders]
        rows = {
            key: np.concatenate(
                [batch[key] for step in zip(*batches, strict=True) for batch in step]
            )
            for key in KEYS
        }
        assert rows["tokens"].shape == (4, SEQ_LEN + 1)
        for row, s in enumerate(written["validation"]):
            codes = s.codes.reshape(-1)
            real = rows["segment_ids"][row] == 1
            np.testing.assert_array_equal(
                rows["tokens"][row][real], [CODEBOOK, *codes, CODEBOOK + 1][: SEQ_LEN + 1]
            )
            assert (rows["segment_ids"][row][~real] == 0).all()
            np.testing.assert_array_equal(rows["positions"][row][real], np.arange(real.sum()))
        assert (rows["segment_ids"][3] == 0).all()
    assert [s.key for s in loaders[0].sentences()] == [s.key for s in written["validation"]]


@pytest.mark.parametrize("hosts", [1, 2, 4])
def test_the_sum_over_hosts_counts_each_held_out_sentence_once(tmp_path, hosts):
    """Ten sentences in batches of 4: each host sees as many batches, and the padding at the end weighs nothing."""
    folder, written = write_dataset(
        tmp_path, splits={"validation": [1, 4, 2, 3, 1, 2, 4, 1, 1, 3]}, shards=3
    )
    counted, labels, batches = collections.Counter(), 0, []
    for host in range(hosts):
        loader = EvalLoader(folder, "validation", SEQ_LEN, 4, host, hosts)
        batches.append(len(list(loader)))
        for batch in loader:
            labels += batch["loss_weights"].sum()
            for tokens, segments in zip(batch["tokens"], batch["segment_ids"], strict=True):
                if segments.any():
                    counted[tuple(tokens[tokens < CODEBOOK].tolist())] += 1
    assert batches == [3] * hosts
    sentences = [tuple(s.codes.reshape(-1).tolist()) for s in written["validation"]]
    assert counted == collections.Counter(sentences)
    # every code is a label, and the EOS where it has a place
    assert labels == sum(min(len(codes) + 1, SEQ_LEN) for codes in sentences)


def test_evaluation_leaves_out_bad_records(corpus):
    folder, written = corpus
    shard = folder / "uvd_scenes-validation.tfrecord-00001-of-00003"
    data = bytearray(shard.read_bytes())
    data[30] ^= 1
    shard.write_bytes(data)
    loader = EvalLoader(folder, "validation", SEQ_LEN, 4)
    assert [s.key for s in loader.sentences()] == [written["validation"][i].key for i in (0, 2)]
    (batch,) = list(loader)
    assert (batch["segment_ids"].max(axis=1) == [1, 0, 1, 0]).all()
    with pytest.raises(UserError, match="global_batch is 3"):
        EvalLoader(folder, "validation", SEQ_LEN, 3, 0, 2)

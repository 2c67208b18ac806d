import numpy as np
import pytest

from lvm_jax.data import packing
from lvm_jax.data.visual_sentence import SpecialTokens
from lvm_jax.errors import UserError

SPECIAL = SpecialTokens(60000)
PER_IMAGE = 4


def random_lengths(seed, n=200, most=8):
    return np.random.default_rng(seed).integers(1, most + 1, n) * PER_IMAGE


def codes_of(lengths):
    """Sentence i's codes: all different over the corpus."""
    begins = np.cumsum(lengths) - lengths
    return lambda i: np.arange(begins[i], begins[i] + lengths[i])


def rows_of(plan, lengths):
    read = codes_of(lengths)
    return [packing.assemble(plan, row, read, SPECIAL) for row in range(len(plan))]


def make(kind, lengths, row_len, seed=0):
    if kind == "packed":
        return packing.pack(lengths, row_len, PER_IMAGE, seed)
    if kind == "split":
        return packing.pack(lengths, row_len, PER_IMAGE, seed, "split")
    if kind == "one":
        return packing.one_per_row(lengths, row_len, PER_IMAGE)
    return packing.concatenate(lengths, row_len, seed)


@pytest.mark.parametrize(
    ("kind", "row_len"),
    [("packed", 33), ("packed", 40), ("split", 17), ("split", 14), ("one", 33), ("concat", 33)],
)
@pytest.mark.parametrize("seed", range(3))
def test_every_code_is_there_exactly_once(kind, row_len, seed):
    lengths = random_lengths(seed)
    plan = make(kind, lengths, row_len, seed)
    tokens = np.concatenate([row[0] for row in rows_of(plan, lengths)])
    codes = tokens[tokens < SPECIAL.codebook_size]
    np.testing.assert_array_equal(np.sort(codes), np.arange(lengths.sum()))
    real = sum(int((segments > 0).sum()) for _, segments, _ in rows_of(plan, lengths))
    assert plan.fill == real / tokens.size


def test_packed_sentences_are_whole_and_apart():
    lengths = random_lengths(1)
    read = codes_of(lengths)
    first_code = {int(read(i)[0]): i for i in range(len(lengths))}
    seen = set()
    for tokens, segments, positions in rows_of(
        packing.pack(lengths, 40, PER_IMAGE, seed=3), lengths
    ):
        count = segments.max()
        assert count >= 1
        # 1, 2, ..., then padding
        np.testing.assert_array_equal(segments[segments > 0], np.sort(segments[segments > 0]))
        assert (segments[np.argmax(segments == 0) :] == 0).all() or (segments > 0).all()
        assert (tokens[segments == 0] == SPECIAL.pad).all()
        assert (positions[segments == 0] == 0).all()
        for s in range(1, count + 1):
            mine = tokens[segments == s]
            i = first_code[int(mine[1])]
            seen.add(i)
            np.testing.assert_array_equal(mine, [SPECIAL.bos, *read(i), SPECIAL.eos])
            np.testing.assert_array_equal(positions[segments == s], np.arange(len(mine)))
    assert seen == set(range(len(lengths)))


def test_a_full_sentence_drops_only_its_eos():
    lengths = np.array([32, 28])
    (full, segments, _), (short, _, _) = sorted(
        rows_of(packing.pack(lengths, 33, PER_IMAGE, 0), lengths), key=lambda row: row[0][1]
    )
    np.testing.assert_array_equal(full, [SPECIAL.bos, *range(32)])
    assert (segments == 1).all()
    assert short[29] == SPECIAL.eos
    assert (short[30:] == SPECIAL.pad).all()


def test_long_sentences():
    lengths = np.array([4, 36])
    with pytest.raises(
        UserError, match=r"sentence 1 has 36 codes, a row holds 32 .* seq_len to at least 36"
    ):
        packing.pack(lengths, 33, PER_IMAGE, 0)
    with pytest.raises(UserError, match=r"seq_len is 3: .* at least 4"):
        packing.pack(lengths, 4, PER_IMAGE, 0, "split")
    plan = packing.pack(lengths, 15, PER_IMAGE, 0, "split")  # 3 images a piece
    pieces = {
        tuple(tokens[segments == s])
        for tokens, segments, _ in rows_of(plan, lengths)
        for s in range(1, segments.max() + 1)
    }
    bos, eos = SPECIAL.bos, SPECIAL.eos
    assert pieces == {
        (bos, *range(4), eos),
        (bos, *range(4, 16)),
        (bos, *range(16, 28)),
        (bos, *range(28, 40), eos),
    }


def test_concat_is_one_stream():
    lengths = random_lengths(2)
    plan = packing.concatenate(lengths, 33, seed=5)
    rows = rows_of(plan, lengths)
    assert len(rows) == -(-(lengths + 2).sum() // 33)
    stream = np.concatenate([tokens for tokens, _, _ in rows])
    order = np.random.default_rng(5).permutation(len(lengths))
    read = codes_of(lengths)
    expected = np.concatenate([[SPECIAL.bos, *read(i), SPECIAL.eos] for i in order])
    np.testing.assert_array_equal(stream[: len(expected)], expected)
    assert (stream[len(expected) :] == SPECIAL.pad).all()
    for _, segments, positions in rows[:-1]:
        assert (segments == 1).all()
        np.testing.assert_array_equal(positions, np.arange(33))


@pytest.mark.parametrize("kind", ["packed", "concat"])
def test_a_plan_is_a_function_of_lengths_and_seed(kind):
    lengths = random_lengths(3)
    one, same, other = (make(kind, lengths, 33, seed).sentence for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert (one[: len(other)] != other[: len(one)]).any()


@pytest.mark.parametrize("kind", ["packed", "concat"])
def test_a_bad_record_leaves_padding_where_it_was(kind):
    lengths = random_lengths(4, n=20, most=4)
    plan = make(kind, lengths, 33)
    read = codes_of(lengths)
    row = int(np.argmax(np.diff(plan.row_offsets) > 1))
    bad = int(plan.sentence[plan.row_offsets[row]])  # others lie behind it
    codes = read(bad)
    for row, (tokens, segments, positions) in enumerate(rows_of(plan, lengths)):
        mended = packing.assemble(plan, row, lambda i: None if i == bad else read(i), SPECIAL)
        hole = mended[1] != segments
        for sound, now, fill in zip(
            (tokens, segments, positions), mended, (SPECIAL.pad, 0, 0), strict=True
        ):
            np.testing.assert_array_equal(now[~hole], sound[~hole])
            assert (now[hole] == fill).all()
        assert set(tokens[hole]) <= {*codes, SPECIAL.bos, SPECIAL.eos}
        assert not set(codes) & set(mended[0])


def test_sentences_of_no_codes_are_left_out():
    lengths = np.array([0, 8, 0, 4])
    for kind in ("packed", "one", "concat"):
        assert set(make(kind, lengths, 33).sentence.tolist()) == {1, 3}


def reference_best_fit_decreasing(sizes, capacity):
    rooms = []
    for size in sorted(sizes, reverse=True):
        fitting = [(room, i) for i, room in enumerate(rooms) if room >= size]
        if fitting:
            rooms[min(fitting)[1]] -= size
        else:
            rooms.append(capacity - size)
    return sorted(rooms)


@pytest.mark.parametrize("seed", range(20))
def test_histogram_packing_is_best_fit_decreasing(seed):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, rng.integers(10, 100), 300)
    capacity = 100
    rooms = reference_best_fit_decreasing(sizes.tolist(), capacity)
    distinct, counts = np.unique(sizes, return_counts=True)
    rows = packing._best_fit_decreasing(distinct.tolist(), counts.tolist(), capacity)
    assert sorted(capacity - sum(contents) for contents, n in rows for _ in range(n)) == rooms


def paper_like_images(n=20_000):
    """Images of each sentence: most are single images, the rest pairs, clips of 16, turntables of 24 cut to 16."""
    rng = np.random.default_rng(0)
    return rng.choice(
        [1, 2, 4, 6, 8, 12, 15, 16], n, p=[0.6, 0.05, 0.05, 0.05, 0.05, 0.05, 0.05, 0.1]
    )


def test_fill_of_a_realistic_mixture():
    lengths = paper_like_images() * 256
    # Rows made for it, 16 images with a BOS and an EOS each: nearly full.
    assert packing.pack(lengths, 16 * 258 + 1, 256, 0).fill >= 0.97
    # The paper's 4096: next to a full sentence there is no room, and other rows hold 15 images at most.
    full = int((lengths == 4096).sum())
    fewest = full + (int(lengths.sum()) // 256 - 16 * full) / 15
    assert len(packing.pack(lengths, 4097, 256, 0)) < 1.01 * fewest
    assert packing.concatenate(lengths, 4097, 0).fill > 0.999

import numpy as np
import pytest

from lvm_jax.data.sentences import packing
from lvm_jax.data.sentences.buckets import BucketTable
from lvm_jax.data.sentences.concat import ConcatRows
from lvm_jax.data.sentences.packing import OnePerRow, PackedRows
from lvm_jax.data.sentences.row_assembly import assemble, label_weights
from lvm_jax.errors import UserError
from lvm_jax.vocabulary import Vocabulary

SPECIAL = Vocabulary.lvm(60000)
PER_IMAGE = 4


def table(lengths):
    lengths = np.asarray(lengths, np.uint32)
    return BucketTable(lengths, np.zeros(len(lengths), np.uint16), np.ones(1))


def random_lengths(seed, n=200, most=8):
    return np.random.default_rng(seed).integers(1, most + 1, n) * PER_IMAGE


def codes_of(lengths):
    """Sentence i's codes: all different over the corpus."""
    begins = np.cumsum(lengths) - lengths
    return lambda ids, starts, counts: [
        np.arange(begins[i] + start, begins[i] + start + count).astype("<u2").tobytes()
        for i, start, count in zip(ids, starts, counts, strict=True)
    ]


def make(kind, lengths, row_len, seed=0):
    if kind == "packed":
        return PackedRows(table(lengths), row_len, PER_IMAGE, seed)
    if kind == "split":
        return PackedRows(table(lengths), row_len, PER_IMAGE, seed, "split")
    return ConcatRows(table(lengths), row_len, seed)


def pass_of(rows, lengths, number=0):
    """(tokens, segment ids, positions) of each row of a pass."""
    n = rows.rows_per_pass
    batch = assemble(rows.rows(number * n, n), codes_of(lengths), rows.row_len, SPECIAL, n)
    return list(zip(batch["tokens"], batch["segment_ids"], batch["positions"], strict=True))


def segments_of(tokens, segments):
    return [tokens[segments == s].tolist() for s in range(1, segments.max() + 1)]


@pytest.mark.parametrize(
    ("kind", "row_len"), [("packed", 33), ("packed", 40), ("split", 17), ("split", 14)]
)
@pytest.mark.parametrize("seed", range(3))
def test_packed_rows_hold_every_code_once_and_repeat_only_at_their_ends(kind, row_len, seed):
    lengths = random_lengths(seed)
    rows = make(kind, lengths, row_len, seed)
    templates = [row.template for row in rows.rows(0, rows.rows_per_pass)]
    seen, real, again = np.zeros(lengths.sum(), int), 0, 0
    for template, (tokens, segments, positions) in zip(
        templates, pass_of(rows, lengths), strict=True
    ):
        used = (segments > 0).sum()
        assert (np.diff(segments[:used]) >= 0).all()  # 1, 2, ..., then padding
        assert (tokens[used:] == SPECIAL.pad).all()
        assert (segments[used:] == 0).all()
        assert (positions[used:] == 0).all()
        real += used
        for s in range(1, segments.max() + 1):
            np.testing.assert_array_equal(
                positions[segments == s], np.arange((segments == s).sum())
            )
            bos, *codes = tokens[segments == s].tolist()
            assert bos == SPECIAL.bos
            if codes[-1] == SPECIAL.eos:
                codes.pop()
            assert codes == list(range(codes[0], codes[0] + len(codes)))  # of one sentence
            if template.repeats and s == segments.max():
                again += (segments == s).sum()
            else:
                seen[codes] += 1
    assert (seen == 1).all()
    assert rows.fill == pytest.approx(real / (rows.rows_per_pass * row_len))
    assert rows.repeated == pytest.approx(again / (rows.rows_per_pass * row_len))


def test_a_row_ends_with_the_beginning_of_another_sentence_of_its_own_kinds():
    lengths = np.array([16, 16, 16, 8])
    rows = make("packed", lengths, 33)
    parts = [segments_of(t, s) for t, s, _ in pass_of(rows, lengths)]
    # 18 and 10 leave 5: a BOS and 4 codes of the shortest that is long enough. 18 leave 15: 14 of the 16 codes.
    sizes = sorted([[len(part) for part in row] for row in parts])
    assert sizes in ([[18, 10, 5], [18, 15], [18, 15]],)
    for row in parts:
        bos, *codes = row[-1]
        assert bos == SPECIAL.bos
        assert codes[0] in np.cumsum(lengths) - lengths


def test_a_full_sentence_drops_only_its_eos():
    lengths = np.array([32, 28])
    rows = sorted(pass_of(make("packed", lengths, 33), lengths), key=lambda row: row[0][1])
    (full, segments, _), (short, _, _) = rows
    np.testing.assert_array_equal(full, [SPECIAL.bos, *range(32)])
    assert (segments == 1).all()
    np.testing.assert_array_equal(short[[0, 29, 30]], [SPECIAL.bos, SPECIAL.eos, SPECIAL.bos])


def test_long_sentences():
    lengths = np.array([4, 36])
    with pytest.raises(UserError, match=r"a sentence has 36 codes, a row holds 32 .* at least 36"):
        PackedRows(table(lengths), 33, PER_IMAGE, 0)
    with pytest.raises(UserError, match=r"seq_len is 3: .* at least 4"):
        PackedRows(table(lengths), 4, PER_IMAGE, 0, "split")
    rows = PackedRows(table(lengths), 15, PER_IMAGE, 0, "split")  # 3 images a piece
    pieces = {tuple(part) for t, s, _ in pass_of(rows, lengths) for part in segments_of(t, s)}
    bos, eos = SPECIAL.bos, SPECIAL.eos
    assert pieces >= {
        (bos, *range(4), eos),
        (bos, *range(4, 16)),
        (bos, *range(16, 28)),
        (bos, *range(28, 40), eos),
    }


def test_one_sentence_a_row_in_order():
    lengths = np.array([8, 0, 4, 40, 4], np.uint32)
    each = OnePerRow(lengths, 33, PER_IMAGE, "split")
    rows = each.rows(0, 99)
    assert len(rows) == len(each) == 5
    assert [int(row.sentences[0]) for row in rows] == [0, 2, 3, 3, 4]
    assert [row.template.pieces[0][:2] for row in rows] == [
        (0, 8),
        (0, 4),
        (0, 32),
        (32, 40),
        (0, 4),
    ]
    assert each.rows(3, 1)[0].template.pieces == rows[3].template.pieces
    with pytest.raises(UserError, match="a sentence has 40 codes"):
        OnePerRow(lengths, 33, PER_IMAGE)


def test_concat_is_one_stream():
    lengths = random_lengths(2)
    rows = make("concat", lengths, 33, seed=5)
    for number in range(2):
        found = pass_of(rows, lengths, number)
        assert len(found) == -(-(lengths + 2).sum() // 33)
        stream = np.concatenate([tokens for tokens, _, _ in found])
        total = int((lengths + 2).sum())
        assert (stream[total:] == SPECIAL.pad).all()
        assert rows.fill == total / len(stream)
        begins = np.flatnonzero(stream == SPECIAL.bos)
        sentences = [part.tolist() for part in np.split(stream[:total], begins[1:])]
        expected = [
            [SPECIAL.bos, *np.frombuffer(codes, "<u2").tolist(), SPECIAL.eos]
            for codes in codes_of(lengths)(range(200), [0] * 200, lengths)
        ]
        assert sentences != expected
        assert sorted(sentences) == sorted(expected)
        for _, segments, positions in found[:-1]:
            assert (segments == 1).all()
            np.testing.assert_array_equal(positions, np.arange(33))


@pytest.mark.parametrize("kind", ["packed", "concat"])
def test_rows_are_a_function_of_lengths_and_seed(kind):
    lengths = random_lengths(3)

    def sentences(seed, number=0):
        rows = make(kind, lengths, 33, seed)
        n = rows.rows_per_pass
        return [row.sentences.tolist() for row in rows.rows(number * n, n)]

    assert sentences(1) == sentences(1)
    assert sentences(1) != sentences(2)
    assert sentences(1) != sentences(1, number=1)


@pytest.mark.parametrize("kind", ["packed", "concat"])
def test_any_row_is_found_alone(kind, monkeypatch):
    """Over many blocks and the border of a pass: the rows asked for one by one, and in tens."""
    monkeypatch.setattr(packing, "BLOCK_ROWS", 7)
    monkeypatch.setattr("lvm_jax.data.sentences.concat.BLOCK_SENTENCES", 7)
    rows = make(kind, random_lengths(3, n=120), 33)
    n = 2 * rows.rows_per_pass + 5
    whole = rows.rows(0, n)
    assert len(whole) == n
    for i in range(n):
        (alone,) = rows.rows(i, 1)
        assert alone.template.pieces == whole[i].template.pieces
        assert alone.sentences.tolist() == whole[i].sentences.tolist()
    for number in range(2):
        first = number * rows.rows_per_pass
        drawn = [
            s
            for row in whole[first : first + rows.rows_per_pass]
            for s, piece in zip(row.sentences, row.template.pieces, strict=True)
            if piece.eos and not (row.template.repeats and piece is row.template.pieces[-1])
        ]
        assert sorted(drawn) == sorted(set(drawn))


@pytest.mark.parametrize("kind", ["packed", "concat"])
def test_a_bad_record_leaves_padding_where_it_was(kind):
    lengths = random_lengths(4, n=20, most=4)
    rows = make(kind, lengths, 33)
    n = rows.rows_per_pass
    plan = rows.rows(0, n)
    bad = int(next(row.sentences[0] for row in plan if len(row.sentences) > 1))
    good = codes_of(lengths)

    def read(ids, *where):
        return [
            None if i == bad else codes for i, codes in zip(ids, good(ids, *where), strict=True)
        ]

    sound = assemble(plan, good, 33, SPECIAL, n)
    mended = assemble(plan, read, 33, SPECIAL, n)
    hole = mended["tokens"] != sound["tokens"]
    assert hole.sum() >= lengths[bad]
    fills = {"tokens": SPECIAL.pad, "segment_ids": 0, "positions": 0}
    for key, fill in fills.items():
        np.testing.assert_array_equal(mended[key][~hole], sound[key][~hole])
        assert (mended[key][hole] == fill).all()
    for batch in (sound, mended):
        weights = batch["loss_weights"]
        assert weights.dtype == np.float32
        np.testing.assert_array_equal(weights, label_weights(batch["segment_ids"]))
    behind = np.pad(hole, ((0, 0), (1, 0)))[:, :-1]  # what a hole ends has nothing that predicts it
    assert (mended["loss_weights"][hole | behind] == 0).all()
    (codes,) = good([bad], [0], [lengths[bad]])
    assert not set(np.frombuffer(codes, "<u2")) & set(mended["tokens"].reshape(-1))


def test_only_labels_that_continue_their_sentence_weigh():
    segments = np.array([[1, 1, 1, 2, 2, 3, 0, 0]])
    np.testing.assert_array_equal(label_weights(segments), [[0, 1, 1, 0, 1, 0, 0, 0]])


def test_a_codebook_of_all_that_two_bytes_can_hold():
    lengths = random_lengths(5, n=20, most=4)
    rows = make("packed", lengths, 33)
    n = rows.rows_per_pass
    small, large = (
        assemble(rows.rows(0, n), codes_of(lengths), 33, Vocabulary.lvm(size), n)
        for size in (1000, 1 << 16)
    )
    np.testing.assert_array_equal(
        large["tokens"], np.where(small["tokens"] < 1000, small["tokens"], small["tokens"] + 64536)
    )


def test_sentences_of_no_codes_are_left_out():
    lengths = np.array([0, 8, 0, 4])
    for kind in ("packed", "concat"):
        rows = make(kind, lengths, 33)
        drawn = [s for row in rows.rows(0, 3 * rows.rows_per_pass) for s in row.sentences]
        assert set(drawn) == {1, 3}


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
    left = [capacity - distinct[list(items)].sum() for items, n in rows for _ in range(n)]
    assert sorted(left) == rooms


def realistic_images(n=20_000):
    """Images of each sentence: by count most are single images, the rest pairs and their multiples, videos of 8-16."""
    rng = np.random.default_rng(0)
    singles = np.ones(int(n * 0.7), int)
    pairs = rng.choice([2, 4, 6, 8, 16], int(n * 0.1))
    videos = rng.integers(8, 17, int(n * 0.2))
    return np.concatenate([singles, pairs, videos])


@pytest.mark.parametrize(("seq_len", "per_image", "images"), [(4096, 256, 16), (512, 64, 8)])
def test_fill_of_a_realistic_mixture(seq_len, per_image, images):
    lengths = np.minimum(realistic_images(), images) * per_image
    rows = PackedRows(table(lengths), seq_len + 1, per_image, 0)
    assert rows.fill >= 0.97
    # What is repeated is no more than what whole sentences cannot use, as the longest of them leave no choice.
    full = int((lengths == seq_len).sum())
    fewest = full + (int(lengths.sum()) // per_image - images * full) / (images - 1)
    assert rows.rows_per_pass < 1.01 * fewest
    assert rows.repeated < 1 - (images - 1) * (per_image + 0.1) / (seq_len + 1)
    # Measured on what comes out, not on the plan.
    segments = np.concatenate(
        [[p.tokens for p in row.template.pieces] for row in rows.rows(10_000, 500)]
    )
    assert segments.sum() >= 0.97 * 500 * (seq_len + 1)
    assert ConcatRows(table(lengths), seq_len + 1, 0).fill > 0.999

import numpy as np
import pytest

from lvm_jax.errors import UserError
from lvm_jax.vocabulary import IdRange, Vocabulary


def test_the_published_lvm_ids():
    vocabulary = Vocabulary.lvm(8192)
    assert (vocabulary.size, vocabulary.bos, vocabulary.eos, vocabulary.pad) == (
        8292,
        8192,
        8193,
        8194,
    )
    assert vocabulary["codes"] == IdRange("codes", 0, 8192)
    assert Vocabulary.lvm_of_size(8292) == vocabulary


def test_the_ids_of_the_unified_system():
    """Text, image codes, nine specials: 51,290 ids; with 1,001 bins and four brackets 52,295 (arXiv 2312.02520)."""
    plain, boxes = Vocabulary.unified(), Vocabulary.unified(bins=1001)
    assert (plain.size, boxes.size) == (51_290, 52_295)
    assert plain["image"] == IdRange("image", 50_257, 51_281)
    names = ("boi", "bot", "eoc", "pad")
    assert [plain.special(name) for name in names] == [51_281, 51_282, 51_283, 51_284]
    assert [boxes.special(name) for name in names] == [51_281, 51_282, 51_283, 51_284]
    assert boxes["bins"] == IdRange("bins", 51_294, 52_295)
    brackets = ("c_st", "c_ed", "b_st", "b_ed")
    assert [boxes.special(name) for name in brackets] == [51_290, 51_291, 51_292, 51_293]


def test_a_mask_allows_the_named_ranges_and_specials_only():
    vocabulary = Vocabulary.of({"text": 5, "image": 3, "specials": 2}, {"end": 9})
    assert np.flatnonzero(vocabulary.mask("image")).tolist() == [5, 6, 7]
    assert np.flatnonzero(vocabulary.mask("text", "end")).tolist() == [0, 1, 2, 3, 4, 9]
    with pytest.raises(ValueError, match="read-only"):
        vocabulary.mask("image")[0] = True


def test_the_range_of_an_id():
    vocabulary = Vocabulary.lvm(10)
    assert vocabulary.range_of(9).name == "codes"
    assert vocabulary.range_of(10).name == "specials"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Vocabulary.lvm(0), "codebook_size is 0: it must be at least 1"),
        (lambda: Vocabulary.lvm_of_size(100), "vocab_size is 100: 100 ids are reserved"),
        (lambda: Vocabulary.of({"text": 0}), "'text' is 0..-1"),
        (lambda: Vocabulary((IdRange("a", 0, 2), IdRange("b", 3, 4))), "'b' is 3..3: it must start at 2"),
        (lambda: Vocabulary.of({"text": 4}, {"end": 4}), "the special 'end' has id 4: ids are 0..3"),
        (lambda: Vocabulary.lvm(4)["text"], "no id range 'text'; known: codes, specials"),
        (lambda: Vocabulary.lvm(4).special("end"), "no special id 'end'; known: bos, eos, pad"),
        (lambda: Vocabulary.lvm(4).mask("words"), "no special id 'words'"),
        (lambda: Vocabulary.lvm(4).range_of(104), "id 104 is not in the vocabulary: ids are 0..103"),
        (
            lambda: Vocabulary((IdRange("a", 0, 2), IdRange("a", 2, 4))),
            "two id ranges are named 'a'",
        ),
    ],
)  # fmt: skip
def test_mistakes_are_named(make, message):
    with pytest.raises(UserError) as raised:
        make()
    assert message in str(raised.value)

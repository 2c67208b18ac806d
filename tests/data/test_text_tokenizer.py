"""A folder with tokenizer.json: ids there and back, and what is refused."""

import dataclasses
import json
import sys

import pytest
from text_fakes import FOLDER, OPT, VICUNA, pieces_of_words, with_settings
from tokenizers import Tokenizer, models, pre_tokenizers

from data_pipelines.train_text_tokenizer import byte_level, character_table, small_settings
from lvm_jax.data.image_text.templates import template_of
from lvm_jax.data.text_tokenizer import (
    SETTINGS_FILE,
    TOKENIZER_FILE,
    Settings,
    TextTokenizer,
    UnknownCharacters,
)
from lvm_jax.errors import UserError


def test_ids_and_back():
    tokenizer = TextTokenizer(FOLDER)
    assert tokenizer.encode("No, 7.\n") == [35, 62, 8, 7, 17, 9, 6]
    assert tokenizer.decode([35, 62, 8, 7, 17, 9, 6, 1]) == "No, 7.\n"
    assert tokenizer.ids == {
        "pad": 0,
        "eos": 1,
        "bos": 1,
        "image_patch": 2,
        "image_start": 3,
        "image_end": 4,
    }
    assert tokenizer.size == 77


def test_words_spelt_like_a_special_token_stay_words(tmp_path):
    texts = ["say <img> and </s>"]
    content = byte_level(texts, 300, OPT)
    tokenizer = with_settings(tmp_path, OPT, content)
    ids = tokenizer.encode(texts[0])
    assert not set(ids) & set(tokenizer.ids.values())
    assert tokenizer.decode(ids) == texts[0]


def test_a_copy_keeps_the_fingerprint_and_any_change_alters_it(tmp_path):
    tokenizer = TextTokenizer(FOLDER)
    tokenizer.save_pretrained(tmp_path / "copy")
    assert TextTokenizer(tmp_path / "copy").fingerprint == tokenizer.fingerprint
    changed = with_settings(tmp_path / "changed", dataclasses.replace(OPT, system="Read."))
    assert changed.fingerprint != tokenizer.fingerprint
    # A run exports what it was trained with, whatever became of the folder in the meantime.
    read = changed.fingerprint
    with_settings(tmp_path / "changed", OPT)
    changed.save_pretrained(tmp_path / "exported")
    assert TextTokenizer(tmp_path / "exported").fingerprint == read


def test_a_first_space_is_not_doubled_where_the_tokenizer_writes_one_itself(tmp_path):
    tokenizer = with_settings(tmp_path, VICUNA, pieces_of_words())
    assert tokenizer.encode(" see") == tokenizer.encode("see")
    assert tokenizer.decode(tokenizer.encode("see  see")) == "see  see"
    assert tokenizer.decode(tokenizer.encode("Ω")) == "Ω"  # in bytes: nothing is unknown


def test_unknown_characters_are_named():
    tokenizer = TextTokenizer(FOLDER)
    with pytest.raises(UnknownCharacters, match=r"has no token for '!', 'é': use one that has"):
        tokenizer.encode("Olé!")
    with pytest.raises(UnknownCharacters, match="is not Unicode"):
        tokenizer.encode("a\ud800")


def test_a_tokenizer_without_an_unknown_token_leaves_out_nothing_in_silence(tmp_path):
    """Byte-pair encoding would drop the characters, so that an answer to be learnt lacked them."""

    def made(name, model):
        tokenizer = Tokenizer(model)
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        tokenizer.add_special_tokens(sorted(set(OPT.specials.values())))
        return with_settings(tmp_path / name, OPT, tokenizer.to_str())

    letters = made("letters", models.BPE({"a": 0, "b": 1, "ab": 2}, [("a", "b")]))
    assert letters.encode("ab b a\n") == [2, 1, 0]
    with pytest.raises(UnknownCharacters, match="has no token for 'é', '水': use one that has"):
        letters.encode("aé b水")
    words = made("words", models.WordLevel({"b": 0, "c": 1}, unk_token="[UNK]"))
    assert words.encode("b c") == [0, 1]
    with pytest.raises(UnknownCharacters, match=r"cannot encode 'a b' .*Missing"):
        words.encode("a b")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_patch": "<pic>"}, r"image_patch is '<pic>' .* reads as 5 tokens, not one"),
        ({"eos": "a"}, r"eos is 'a' .* an ordinary token"),
        ({"pad": ""}, "pad is missing"),
        ({"image_end": "<img>"}, "image_start and image_end .* are both '<img>'"),
        ({"image_patch": "</s>"}, "eos and image_patch .* are both '</s>'"),
        ({"turn_start": "<turn>"}, "turn_start is '<turn>' .* not one"),
    ],
)
def test_a_wrong_special_is_refused_by_name(tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        with_settings(tmp_path, dataclasses.replace(OPT, **change))


def test_gpt_2s_only_special_token_will_do_where_no_row_has_image_tokens(tmp_path):
    """The unified vocabulary has 50,257 ids of text: there is no room for tokens beside GPT-2's."""
    settings = Settings(pad="<|endoftext|>", eos="<|endoftext|>")
    words = with_settings(tmp_path, settings, byte_level(["a cat"], 257, settings))
    assert (words.size, words.ids) == (257, {"pad": 0, "eos": 0})
    assert words.decode(words.encode("a cat")) == "a cat"
    with pytest.raises(UserError, match="name no template: add one of opt, vicuna_v1, mpt"):
        template_of(words)
    settings = dataclasses.replace(settings, bos="<|endoftext|>", template="opt")
    words = with_settings(tmp_path, settings, byte_level(["a cat"], 257, settings))
    with pytest.raises(UserError, match=r"'opt' needs the token 'image_start', .* name: add it"):
        template_of(words)


def test_ids_outside_the_embedding_are_refused():
    assert TextTokenizer(FOLDER, vocab_size=77).size == 77
    with pytest.raises(UserError, match=r"image_start '<img>' .* has id 3, the embedding has 3"):
        TextTokenizer(FOLDER, vocab_size=3)
    with pytest.raises(UserError, match=r"largest id .* is 76, the embedding has 76 rows"):
        TextTokenizer(FOLDER, vocab_size=76)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (TOKENIZER_FILE, None, "tokenizer.json cannot be read"),
        (SETTINGS_FILE, None, "text_tokenizer.json cannot be read"),
        (TOKENIZER_FILE, b"{}", "is no tokenizer of the package"),
        (TOKENIZER_FILE, b"\xff", "is no tokenizer of the package"),
        (SETTINGS_FILE, b"{", "is not JSON"),
        (SETTINGS_FILE, b"\xff\xfe\xff", "is not JSON"),
        (SETTINGS_FILE, b'{"pda": ""}', "pda does not exist.*did you mean 'pad'"),
        (SETTINGS_FILE, b'{"pad": "<pad>"}', "eos is missing"),
    ],
)
def test_damaged_folders_are_one_line(tmp_path, name, content, message):
    with_settings(tmp_path, OPT)
    if content is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        TextTokenizer(tmp_path)
    assert "\n" not in str(error.value)


def test_without_the_package_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(UserError, match=r"pip install 'lvm_jax\[text\]'"):
        TextTokenizer(FOLDER)


def test_padding_of_the_file_is_switched_off(tmp_path):
    content = json.loads((FOLDER / TOKENIZER_FILE).read_text())
    content["padding"] = {
        "strategy": {"Fixed": 8},
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "<pad>",
    }
    content["truncation"] = {
        "direction": "Right",
        "max_length": 2,
        "strategy": "LongestFirst",
        "stride": 0,
    }
    tokenizer = with_settings(tmp_path, OPT, json.dumps(content))
    assert tokenizer.encode("No, 7.") == [35, 62, 8, 7, 17, 9]


@pytest.mark.parametrize("template", ["opt", "vicuna_v1", "mpt"])
def test_a_table_of_characters_knows_what_the_template_writes(tmp_path, template):
    settings = dataclasses.replace(small_settings(template), system="Listen")
    tokenizer = with_settings(tmp_path, settings, character_table(["xyz"], settings))
    assert len(tokenizer.encode("xyzListen")) == 9
    with pytest.raises(UnknownCharacters):
        tokenizer.encode("Q")
    with pytest.raises(UserError, match="texts are empty"):
        character_table([], settings)


def test_a_trained_byte_level_tokenizer_spells_everything_and_digits_alone(tmp_path):
    settings = small_settings("mpt")
    texts = ["the year 1789 and the year 1848"] * 3
    content = byte_level(texts, 300, settings)
    assert content == byte_level(texts, 300, settings)
    tokenizer = with_settings(tmp_path, settings, content)
    assert tokenizer.size <= 300
    assert len(tokenizer.encode("1789")) == 4
    assert len(tokenizer.encode(" year")) == 1
    assert tokenizer.decode(tokenizer.encode("naïve 水\t")) == "naïve 水\t"
    with pytest.raises(UserError, match="vocab_size is 200: it must be at least"):
        byte_level(texts, 200, settings)


def test_whole_texts_are_one_token_and_the_longest_counts(tmp_path):
    settings = small_settings("mpt")
    content = character_table(["axby. Read"], settings, whole=("Read", "Read a.", "by"))
    tokenizer = with_settings(tmp_path, settings, content)
    assert len(tokenizer.encode("Read a.")) == 1
    assert len(tokenizer.encode("Read ax")) == 4
    assert len(tokenizer.encode("abyx")) == 3
    assert tokenizer.decode(tokenizer.encode("abyx. Read a.")) == "abyx. Read a."
    with pytest.raises(UserError, match="'a' is to be one token, and is one"):
        character_table(["axb"], settings, whole=("a",))

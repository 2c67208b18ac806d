"""Engines of pictures with words: truth and picture agree, held-out items share nothing, and all is repeatable."""

import ast
import dataclasses
import hashlib
import json

import numpy as np
import pytest
from PIL import Image, ImageDraw

from data_pipelines import build_uvd
from data_pipelines.build.plan import plan
from data_pipelines.build.recipe import from_config
from data_pipelines.configs import vary_lines, vary_small
from data_pipelines.documents import (
    HELD_OUT,
    Ask,
    Charts,
    Conversations,
    Lines,
    Negatives,
    Pages,
    Talk,
)
from data_pipelines.documents.chart_data import STYLES, Chart
from data_pipelines.documents.chart_drawing import draw_chart
from data_pipelines.documents.corpus import read_texts, words_of
from data_pipelines.documents.lines import line_of
from data_pipelines.documents.negatives import ANSWERS
from data_pipelines.items import Text
from data_pipelines.sentences import Unfit
from data_pipelines.sources.base import BadItem
from data_pipelines.text_page import text_page
from data_pipelines.train_text_tokenizer import (
    character_table,
    conversations_of,
    small_settings,
)
from data_pipelines.verify import sample_image_text, verify
from lvm_jax.data.image_text.loader import ImageTextLoader, RowShape
from lvm_jax.data.image_text.views import View
from lvm_jax.data.text_tokenizer import TextTokenizer, save_folder
from lvm_jax.errors import UserError

SMALL_PAGES = {"height": 160, "width": 240, "sizes": (8, 10), "sentences": (1, 2)}
SMALL_CHARTS = {"height": 96, "width": 128, "sizes": (7, 8), "labels": (2, 3)}
ENGINES = {
    "lines": Lines(
        count=12,
        held_out=6,
        fonts=("DejaVuSans", "DejaVuSansMono"),
        held_out_fonts=("DejaVuSerif",),
        sizes=(10, 14),
    ),
    "pages": Pages(
        count=6,
        held_out=3,
        templates=("1", "2h"),
        held_out_templates=("1i",),
        fonts=("DejaVuSans",),
        held_out_fonts=("DejaVuSerif",),
        **SMALL_PAGES,
    ),
    "charts": Charts(
        count=6,
        held_out=3,
        styles=("0", "1g"),
        held_out_styles=("2d",),
        title_characters=12,
        axis_titles=False,
        **SMALL_CHARTS,
    ),
}


def keys_of(source):
    return source.keys()


def words(item, role="text"):
    return [text.words for text in item[role]]


@pytest.mark.parametrize("name", ENGINES)
def test_an_item_follows_from_its_key(name):
    source = ENGINES[name]
    keys = source.keys()
    assert keys == sorted(set(keys))
    one, again = source.load(keys[0]), source.load(keys[0])
    np.testing.assert_array_equal(one["image"][0], again["image"][0])
    assert words(one) == words(again)
    other = dataclasses.replace(source, seed=1).load(keys[0])
    assert words(other) != words(one)
    assert one["image"][0].shape == (source.height, source.width, 3)
    assert one["image"][0].std() > 5, "something is drawn"


@pytest.mark.parametrize("name", ENGINES)
def test_held_out_items_share_nothing_with_seen_ones(name):
    source = ENGINES[name]
    facets = {"seen": set(), "held_out": set()}
    for key in keys_of(source):
        facets[key.split("/")[0]].update(words(source.load(key), "facets"))
    assert facets["seen"]
    assert not facets["seen"] & facets["held_out"]
    kinds = {facet.split("=")[0] for facet in facets["held_out"]}
    expected = {
        "lines": {"text", "font"},
        "pages": {"text", "font", "template"},
        "charts": {"text", "template"},
    }
    assert kinds == expected[name]


def test_lines_have_all_lengths_and_their_words_follow_in_the_text():
    source = Lines(count=150, held_out=1, max_characters=8)
    found = [words(source.load(key))[0] for key in source.keys()[1:]]
    assert {len(text) for text in found} == set(range(1, 9))
    whole = " ".join(read_texts("english"))
    inside = [text for text in found if text in whole]
    assert len(inside) > 0.9 * len(found)  # the others run from one sentence into another


def test_lines_stand_at_the_left_where_they_are_told_to():
    source = Lines(count=60, held_out=1, max_characters=8, indent=(3, 11))
    inked = [
        np.flatnonzero((source.load(key)["image"][0] < 128).any((0, 2)))[0]
        for key in source.keys()[1:]
    ]
    # Ink may begin up to two pixels inside the box of its glyph.
    assert 3 <= min(inked) < max(inked) <= 13
    wide = Lines(count=4, held_out=1, min_characters=12, sizes=(17, 17), height=32, indent=(90, 90))
    assert (wide.load("seen/0000000")["image"][0][:, -2:] == 255).all(), "it stays in the picture"


@pytest.fixture
def drawn(monkeypatch):
    """What is written on pictures, in order."""
    texts = []
    real = ImageDraw.ImageDraw.text

    def text(self, at, line, **options):
        texts.append(line)
        return real(self, at, line, **options)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", text)
    return texts


def test_rows_are_broken_where_the_picture_ends_and_so_is_the_truth(drawn):
    fonts = ("DejaVuSans", "STIXGeneralBol")
    source = Lines(
        count=40, held_out=1, height=64, rows=3, min_characters=8, max_characters=34, fonts=fonts
    )
    rows = []
    for key in keys_of(source):
        drawn.clear()
        item = source.load(key)
        (truth,) = words(item)
        assert drawn == truth.split("\n")
        paper = item["image"][0] == 255
        paper[2:-2, 2:-2] = True
        assert paper.all(), "the margin is two pixels wide"
        rows.append(len(drawn))
    assert set(rows) == {1, 2, 3}
    tall = keys_of(source)[rows.index(3)]
    with pytest.raises(BadItem, match="and 2 rows"):
        dataclasses.replace(source, height=99, rows=2, sizes=(16, 16)).load(tall)
    with pytest.raises(BadItem, match="and 1 rows"):
        dataclasses.replace(source, rows=1, min_characters=34).load(key)


def test_a_page_says_what_was_drawn(drawn):
    for key in keys_of(ENGINES["pages"]):
        drawn.clear()
        (truth,) = words(ENGINES["pages"].load(key))
        assert " ".join(drawn).split() == truth.split()
        assert len(drawn) > 3


def test_a_page_has_no_line_below_its_edge():
    for template in ("1h", "2h", "3h"):
        sizes = {"height": 64, "width": 256, "sizes": (16, 16)}
        source = Pages(count=20, held_out=4, templates=(template,), **sizes)
        for key in keys_of(source):
            picture = source.load(key)["image"][0]
            assert (picture[-1] == picture[0, 0]).all()


def test_lines_break_between_words_or_characters_of_han(tmp_path):
    assert words_of("deux cafés") == (["deux", "cafés"], " ")
    assert words_of("été") == (["été"], " ")
    assert words_of("用 tar。") == (list("用 tar。"), "")
    (tmp_path / "texts.txt").write_text("字 字\n字字")
    source = Lines(texts=str(tmp_path / "texts.txt"), count=1, held_out=1, held_out_texts=0.5)
    texts, rng = read_texts(source.texts), np.random.default_rng(0)
    found = {line_of(texts, 1, 3, rng) for _ in range(60)}
    assert "字 字" in found
    assert all(text and text == text.strip() for text in found)


def test_a_page_without_a_word_that_fits_is_told(tmp_path):
    (tmp_path / "texts.txt").write_text("\n".join(chr(0x3B1 + i) * 90 for i in range(20)))
    source = Pages(texts=str(tmp_path / "texts.txt"), count=1, held_out=1, **SMALL_PAGES)
    with pytest.raises(BadItem, match="no word fits a column at size"):
        source.load("seen/0000000")


def test_a_page_needs_a_text_of_its_side(tmp_path):
    (tmp_path / "texts.txt").write_text("one\ntwo")
    source = Pages(texts=str(tmp_path / "texts.txt"), held_out_texts=1e-9, **SMALL_PAGES)
    assert sorted(words(source.load("seen/0000000"))[0].split()) == ["one", "two"]
    with pytest.raises(UserError, match="no text of 2 is held out with held_out_texts=1e-09"):
        source.load("held_out/0000000")


def test_what_a_font_lacks_is_counted_and_named(tmp_path):
    for source in (
        Lines(texts="han", count=1, held_out=1, min_characters=7, max_characters=7),
        Pages(texts="han", count=1, held_out=1, **SMALL_PAGES),
        Charts(texts="han", count=1, held_out=1, **SMALL_CHARTS),
    ):
        with pytest.raises(BadItem, match=r"font DejaVu\w* lacks \d+ characters: '.' \(U\+"):
            source.load("seen/0000000")


def test_a_line_that_does_not_fit_is_told():
    source = Lines(count=1, held_out=1, width=30, min_characters=12)
    with pytest.raises(BadItem, match=r"at size 14, the picture has room for 26 x 20"):
        source.load("seen/0000000")


def test_the_truth_of_a_chart_is_a_dict():
    chart = Chart("bar", "a 'title'", "", "$y", {"": {"a": 2.0, "b": 12.504}})
    assert (
        chart.truth()
        == """{'title': "a 'title'", 'y_title': '$y', 'values': {'a': 2, 'b': 12.5}}"""
    )
    two = Chart("line", "t", "", "", {"p": {"a": 1}, "q": {"a": 2}})
    assert ast.literal_eval(two.truth())["values"] == {"p": {"a": 1}, "q": {"a": 2}}
    assert set(two.texts) == {"t", "p", "q", "a"}
    for key in keys_of(ENGINES["charts"]):
        told = ast.literal_eval(words(ENGINES["charts"].load(key))[0])
        assert list(told) == ["title", "values"]


def test_sectors_of_a_pie_are_whole_percents():
    source = dataclasses.replace(ENGINES["charts"], kinds=("pie",))
    for key in keys_of(source):
        values = ast.literal_eval(words(source.load(key))[0])["values"].values()
        assert sum(values) == 100
        assert min(values) >= 4


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        ("bar", {"": {"a": float("nan")}}, "value of 'a' in the chart 't' is nan"),
        ("bar", {"": {"a": float("inf")}}, "is inf"),
        ("pie", {"": {"a": 0}}, "must be above 0"),
        ("bar", {}, "has no values"),
        ("bar", {"": {}}, "has no values"),
        ("line", {"p": {"a": 1}, "q": {"b": 1}}, "different labels"),
        ("pie", {"p": {"a": 1}, "q": {"a": 1}}, "a pie has at most 1"),
        ("radar", {"": {"a": 1}}, "is of kind 'radar'"),
    ],
)
def test_charts_that_cannot_be_drawn_are_refused(kind, values, message):
    with pytest.raises(UserError, match=message):
        Chart(kind, "t", "", "", values)


def test_dollar_signs_are_no_mathematics_and_every_colour_shows_on_its_paper():
    chart = Chart("line", "$\\oops$", "", "", {"": {"$a": 1, "b_{": 2}})
    for name in ("0", "1d", "2d", "3d"):
        picture = draw_chart(chart, STYLES[name], "DejaVuSans", 8, 96, 128).astype(int)
        paper = picture[2, 2]
        assert (np.abs(picture - paper).max(axis=-1) > 60).mean() > 0.01


def test_negatives_have_one_of_a_few_answers(tmp_path):
    for i in range(3):
        Image.new("RGB", (40, 30), (i, 0, 0)).save(tmp_path / f"{i}.png")
    source = Negatives(str(tmp_path), short_side=15)
    item = source.load("1.png")
    assert item["image"][0].shape == (15, 20, 3)
    assert words(item)[0] in ANSWERS
    assert words(source.load("1.png")) == words(item)


def published(folder, entries):
    Image.new("RGB", (4, 3)).save(folder / "a.png")
    (folder / "conversations.json").write_text(json.dumps(entries))
    return Conversations(str(folder))


def turns(*values):
    return [{"from": ("human", "gpt")[i % 2], "value": value} for i, value in enumerate(values)]


def test_conversations_come_with_their_images(tmp_path):
    source = published(
        tmp_path,
        [
            {"id": "x", "image": "a.png", "conversations": turns("<image>A?", "B", "C?", "D")},
            {"conversations": turns("A?", "B")},
        ],
    )
    assert source.keys() == ["0000000/x", "0000001"]
    item = source.load("0000000/x")
    values, layout = Talk().compose([item], np.random.default_rng(0))
    assert layout == "image,conversation"
    assert json.loads(values[1].words) == turns("<image>A?", "B", "C?", "D")
    assert Talk().compose([source.load("0000001")], np.random.default_rng(0))[1] == "conversation"
    with pytest.raises(Unfit, match="it has 1 pictures, max_images is 0"):
        Talk(max_images=0).compose([item], np.random.default_rng(0))


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"conversations": turns("<image>A?", "B")}, "0 pictures for 1 placeholders"),
        (
            {"image": ["a.png", "a.png"], "conversations": turns("<image>A?", "B")},
            "2 pictures for 1 placeholders",
        ),
        ({"image": "a.png", "conversations": turns("A?", "B")}, "1 pictures for 0"),
        ({"image": "b.png", "conversations": turns("<image>", "B")}, r"b.png cannot be decoded"),
        ({"image": "conversations.json", "conversations": turns("<image>", "B")}, "not an image"),
        ({"conversations": turns("A?")}, "last turn has no answer"),
        ({"id": 3}, "it has no conversations"),
        ("hello", "it has no conversations"),
    ],
)
def test_a_bad_conversation_is_one_bad_item(tmp_path, entry, message):
    source = published(tmp_path, [entry])
    with pytest.raises(BadItem, match=message):
        source.load(source.keys()[0])


@pytest.mark.parametrize(("content", "message"), [("{", "not JSON"), ("{}", "holds no list")])
def test_a_bad_file_of_conversations_is_one_line(tmp_path, content, message):
    with pytest.raises(UserError, match=r"conversations\.json cannot be read"):
        Conversations(str(tmp_path)).keys()
    (tmp_path / "conversations.json").write_text(content)
    with pytest.raises(UserError, match=message):
        Conversations(str(tmp_path)).keys()


def test_questions():
    item = {"image": [np.zeros((2, 2, 3), np.uint8)], "text": [Text("B")], "facets": [Text("f=1")]}
    values, layout = Ask(("A?",)).compose([item], np.random.default_rng(0))
    assert layout == "image,conversation,facet"
    assert json.loads(values[1].words) == turns("<image>\nA?", "B")
    with pytest.raises(Unfit, match="it has no 'caption'"):
        Ask(answer="caption").compose([item], np.random.default_rng(0))
    with pytest.raises(UserError, match="a question holds <image>"):
        Ask(("<image>?",))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Lines(held_out=0).keys(), "held_out is 0 and count 1000"),
        # Of two groups of one size, a hash would decide which is validation.
        (
            lambda: Lines(count=2, held_out=2).keys(),
            "held_out is 2 and count 2: .* fewer than are seen",
        ),
        (lambda: Lines(fonts=()), "fonts is empty"),
        (lambda: Lines(held_out_fonts=("DejaVuSansMono",)), "is in fonts and in held_out_fonts"),
        (lambda: Lines(fonts=("Nowhere",)).keys(), "font 'Nowhere' cannot be opened.*DejaVuSans"),
        (lambda: Lines(texts="nowhere.txt").keys(), "nowhere.txt cannot be read"),
        (lambda: Lines(max_characters=0), "max_characters 0"),
        (lambda: Lines(sizes=(9, 8)), r"sizes is \(9, 8\)"),
        (lambda: Lines(rows=0), "rows is 0: at least 1"),
        (lambda: Lines(indent=(3, 999)), r"indent is \(3, 999\)"),
        (lambda: Lines(held_out_texts=1.0), "held_out_texts is 1.0"),
        (lambda: Pages(templates=("4",)), "there is no template '4'"),
        (lambda: Charts(kinds=("radar",)), "there is no kind 'radar'"),
        (lambda: Charts(styles=("9",)), "there is no style '9'"),
        (lambda: Negatives("/x", answers=()), "answers is empty"),
    ],
)
def test_wrong_fields_are_refused(make, message):
    with pytest.raises(UserError, match=message):
        make()


def test_texts_are_files_or_folders(tmp_path):
    (tmp_path / "a.txt").write_text("one  two\n\nthree\n")
    (tmp_path / "b.txt").write_text("four\none two\n")
    assert read_texts(str(tmp_path / "a.txt")) == ("one two", "three")
    assert read_texts(str(tmp_path)) == ("one two", "three", "four")
    assert len(read_texts("english")) >= 400
    assert not any("," in text for text in read_texts("han"))
    (tmp_path / "c.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match=r"c.txt is not UTF-8"):
        read_texts(str(tmp_path / "c.txt"))
    (tmp_path / "d.txt").write_text("\n \n")
    with pytest.raises(UserError, match=r"d.txt holds no text"):
        read_texts(str(tmp_path / "d.txt"))


# The pipeline from a recipe to shards, verification, and a batch.


@pytest.fixture
def recipe(tmp_path):
    """The recipe that ships, with few items."""
    config = vary_lines.get_config("runlocal")
    config.entries.lines.source.count = 8
    config.entries.charts.source.count = 3
    (tmp_path / "photos").mkdir()
    for i in range(4):
        Image.new("RGB", (12, 9), (9 * i, 0, 0)).save(tmp_path / "photos" / f"{i}.png")
    config.entries.negatives.source.root = str(tmp_path / "photos")
    return config


def digests(folder):
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.iterdir()
        if path.is_file()
    }


def test_a_recipe_becomes_shards_a_page_and_a_batch(tmp_path, recipe, plain_loop):
    manifest = build_uvd.build(from_config(recipe), "", tmp_path / "one")
    folder = tmp_path / "one" / "vary_lines" / "1.0.0"
    assert (manifest.encoding, manifest.tokenizer_fingerprint) == ("image_text", "")
    found = verify(folder)
    assert (
        found.source_images == found.source_sentences == {"lines": 10, "charts": 5, "negatives": 4}
    )
    assert found.sentences["validation"] >= 5
    assert manifest.sources["lines"]["licence"] == "Apache-2.0"
    held_out = [r for r in sample_image_text(folder, 99, 0) if "held_out" in r.key]
    assert len(held_out) == 4
    # Another order of work and other workers: the same bytes.
    plain_loop[0] = -1
    build_uvd.build(from_config(recipe), "", tmp_path / "other")
    assert digests(folder) == digests(tmp_path / "other" / "vary_lines" / "1.0.0")
    records = sample_image_text(folder, 3, seed=0)
    page = text_page(records)
    assert page.ndim == 3
    assert page.std() > 10
    settings = dataclasses.replace(small_settings("mpt"), system="")
    texts = [text for r in sample_image_text(folder, 99, 0) for text in r.conversation.answers]
    asked = [t.question for r in sample_image_text(folder, 99, 0) for t in r.conversation.turns]
    save_folder(tmp_path / "tokenizer", character_table([*texts, *asked], settings), settings)
    shape = RowShape(200, 1, 4, {"images": View(24, 128, fit="pad")})
    tokenizer = TextTokenizer(tmp_path / "tokenizer")
    with ImageTextLoader(folder, "train", tokenizer, shape, 4, seed=0, threads=0) as batches:
        batch = next(batches)
        assert batches.corrupt == 0
    assert batch["images"].shape == (4, 1, 24, 128, 3)
    patch = tokenizer.ids["image_patch"]
    assert (np.take_along_axis(batch["tokens"], batch["image_places"][:, 0], 1) == patch).all()


@pytest.mark.parametrize(
    ("part", "sources"),
    [
        ("lines", {"lines"}),
        ("fonts", {"fonts", "new_fonts"}),
        ("blocks", {"blocks"}),
        ("rest", {"charts", "shapes", "photos"}),
    ],
)
def test_the_small_model_has_a_data_set_for_each_stage(part, sources):
    recipe = from_config(vary_small.get_config(f"part={part},runlocal"))
    assert recipe.name == f"vary_small_{part}"
    assert {entry.source.name for entry in recipe.entries} == sources
    for entry in recipe.entries:
        key, *_, last = entry.source.keys()
        shapes = {entry.source.load(k)["image"][0].shape for k in (key, last)}
        if part != "rest":
            assert shapes == {(32, 128, 3) if part == "lines" else (64, 160, 3)}
    with pytest.raises(UserError, match="part=line does not exist: choose one of lines, fonts"):
        vary_small.get_config("part=line")


def test_texts_are_checked_with_the_tokenizer_that_is_given(tmp_path, recipe, plain_loop):
    settings = small_settings("opt")
    save_folder(tmp_path / "poor", character_table(["abc"], settings), settings)
    with pytest.raises(UserError, match=r"sentence '.*': the tokenizer .* has no token for"):
        build_uvd.build(from_config(recipe), str(tmp_path / "poor"), tmp_path / "out")
    assert not list((tmp_path / "out").rglob("manifest.json"))


def test_a_tokenizer_made_of_the_shards_passes_their_check(tmp_path, recipe, plain_loop):
    """`<image>` is no text, and the template `opt` shows no question."""
    build_uvd.build(from_config(recipe), "", tmp_path / "any")
    records = sample_image_text(tmp_path / "any" / "vary_lines" / "1.0.0", 99, 0)
    answers = [text for record in records for text in record.conversation.answers]
    texts = {"opt": answers, "mpt": list(conversations_of(str(tmp_path / "any")))}
    for template, shown in texts.items():
        settings = small_settings(template)
        save_folder(tmp_path / template, character_table(shown, settings), settings)
        folder = str(tmp_path / template)
        manifest = build_uvd.build(from_config(recipe), folder, tmp_path / f"for_{template}")
        assert manifest.tokenizer_fingerprint == TextTokenizer(folder).fingerprint


def test_a_leak_between_splits_is_found(tmp_path, recipe, plain_loop):
    # One text that all lines show, split by the items' keys alone.
    (tmp_path / "text.txt").write_text("a\n")
    recipe.entries.lines.together = ""
    recipe.entries.lines.source.update(texts=str(tmp_path / "text.txt"), count=8, max_characters=1)
    recipe.entries.lines.source.held_out_texts = 1e-9
    del recipe.entries["charts"], recipe.entries["negatives"]
    recipe.validation_fraction = 0.5
    with pytest.raises(UserError, match="none of 10000 drawn texts is held out"):
        build_uvd.build(from_config(recipe), "", tmp_path / "out")
    source = dataclasses.replace(Lines(count=8, held_out=2, max_characters=2), name="leaky")

    class Leaky(Lines):
        def load(self, key):
            return source.load("seen/0000000")

    plain = from_config(recipe)
    entry = dataclasses.replace(plain.entries[0], source=Leaky(count=8, held_out=2))
    build_uvd.build(dataclasses.replace(plain, entries=(entry,)), "", tmp_path / "leaky")
    with pytest.raises(UserError, match=r"'text=\w{12}' is in 'train' too.*together=HELD_OUT"):
        verify(tmp_path / "leaky" / "vary_lines" / "1.0.0")


def test_the_encoding_needs_conversations_and_the_other_one_a_tokenizer(tmp_path, recipe):
    recipe.entries.negatives.composer = {"kind": "single_image"}
    with pytest.raises(UserError, match=r"entries.negatives has a composer of visual sentences"):
        build_uvd.build(from_config(recipe), "", tmp_path / "out")
    recipe.encoding = "vqgan"
    with pytest.raises(UserError, match="no tokenizer is given"):
        build_uvd.build(from_config(recipe), "", tmp_path / "out")


def test_held_out_keys_are_one_group():
    recipe = from_config(vary_lines.get_config("runlocal"))
    assert {entry.together for entry in recipe.entries} == {HELD_OUT, ""}
    trained = {item for sentence in plan(recipe)["train"] for item in sentence.items}
    assert not any(item.startswith("held_out/") for item in trained)

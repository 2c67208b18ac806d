"""Articles by typst, charts by ECharts, pages of PDF files: what the picture shows is what the truth says."""

import ast
import dataclasses
import importlib.util
import re

import numpy as np
import pytest
from pdf_files import ENCRYPTED, pdf, written

from data_pipelines import build_uvd
from data_pipelines.build.recipe import from_config
from data_pipelines.configs import vary_pages
from data_pipelines.documents import Articles, Charts, Pdfs, echarts, formulas, typst_page
from data_pipelines.documents.chart_data import STYLES, Chart
from data_pipelines.documents.chart_drawing import draw_chart
from data_pipelines.documents.formulas import SYMBOLS, frac, plain, row
from data_pipelines.documents.page_tree import (
    Equation,
    Heading,
    Listing,
    Paragraph,
    Table,
    markdown,
    words_on,
)
from data_pipelines.documents.typesetting import face_of, places
from data_pipelines.documents.typst_page import TEMPLATES, Sheet, fitting, picture_of
from data_pipelines.sources.base import BadItem
from data_pipelines.verify import sample_image_text, verify
from lvm_jax.errors import UserError

for package in ("typst", "py_mini_racer", "pypdfium2", "vizly"):
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"no {package}: pip install 'lvm_jax[documents]'", allow_module_level=True)

SMALL = {"height": 240, "width": 240, "sizes": (8, 9)}
ARTICLES = Articles(
    count=5,
    held_out=3,
    templates=("1", "2nr"),
    held_out_templates=("1j",),
    fonts=("NewComputerModern", "DejaVuSerif"),
    held_out_fonts=("LibertinusSerif",),
    **SMALL,
)
SMALL_CHARTS = {"height": 160, "width": 240, "sizes": (8, 9), "labels": (2, 3)}
CHARTS = Charts(
    renderer="echarts", count=5, held_out=2, title_characters=12, axis_titles=False, **SMALL_CHARTS
)


def words(item, role="text"):
    return [text.words for text in item[role]]


# Articles.


@pytest.mark.parametrize("source", [ARTICLES, CHARTS], ids=["articles", "charts"])
def test_an_item_follows_from_its_key_and_held_out_ones_share_nothing(source):
    facets = {"seen": set(), "held_out": set()}
    keys = source.keys()
    for key in keys:
        item = source.load(key)
        assert item["image"][0].shape == (source.height, source.width, 3)
        assert item["image"][0].std() > 5, "something is drawn"
        facets[key.split("/")[0]].update(words(item, "facets"))
    assert facets["seen"]
    assert not facets["seen"] & facets["held_out"]
    again = source.load(key)
    np.testing.assert_array_equal(item["image"][0], again["image"][0])
    assert words(item) == words(again) != words(dataclasses.replace(source, seed=1).load(key))


def test_both_names_of_a_symbol_are_one_character():
    from matplotlib._mathtext_data import tex2uni

    named = ", ".join(f'"{name}": str(sym.{typst})' for name, typst in SYMBOLS.items())
    (found,) = places(f"#[#metadata(({named})) <symbols>]", face_of("NewComputerModern"), "symbols")
    assert found[0] == {name: chr(tex2uni[name]) for name in SYMBOLS}


def test_formulas_are_written_for_both():
    half = frac(plain("1"), plain("2"))
    built = row(
        formulas.root(half, 3),
        formulas.bracketed(half),
        formulas.bracketed(plain("x")),
        formulas.indexed(formulas.symbol("phi"), plain("i"), plain("2")),
        formulas.accented("bar", plain("y")),
        formulas.matrix([[plain("a"), plain("b")], [plain("c"), plain("d")]]),
    )
    assert built.latex == (
        r"\sqrt[3]{\frac{1}{2}} \left( \frac{1}{2} \right) ( x ) \phi_{i}^{2} \bar{y} "
        r"\begin{pmatrix} a & b \\ c & d \end{pmatrix}"
    )
    assert built.typst == (
        "root(3, frac(1, 2)) (frac(1, 2)) (x) phi.alt_(i)^(2) macron(y) mat(a, b; c, d)"
    )


def test_random_formulas_have_matched_braces_and_no_two_numbers_in_a_row():
    rng = np.random.default_rng(0)
    found = [formulas.display_formula(rng) for _ in range(300)]
    found += [formulas.inline_formula(rng) for _ in range(100)]
    assert len({formula.latex for formula in found}) > 350
    for formula in found:
        assert formula.latex.count("{") == formula.latex.count("}")
        assert not re.search(r"\d \d", formula.latex), formula.latex
    # typst takes every one of them.
    every = "\n".join(f"$ {formula.typst} $" for formula in found[:60])
    assert places(f"{every}#[#metadata(1) <end>]", face_of("NewComputerModern"), "end") == [[1]]


TREE = (
    Heading(2, "1 Sums*"),
    Paragraph(("- a sum ", frac(plain("a"), plain("b")), ", of $5 and_6")),
    Listing(("1. one", "two"), numbered=True),
    Table(("a|b", "50%"), (("1", "x_y"),)),
    Equation(plain("x"), "3"),
)


def test_markdown_of_a_tree():
    assert markdown(TREE) == "\n\n".join(
        (
            r"## 1 Sums\*",
            r"\- a sum $\frac{a}{b}$, of \$5 and\_6",
            "1. 1\\. one\n2. two",
            "| a\\|b | 50% |\n| --- | --- |\n| 1 | x\\_y |",
            "$$\nx \\tag{3}\n$$",
        )
    )
    table = markdown(TREE[3:4], "latex").split("\n")
    assert table == [
        r"\begin{tabular}{ll}",
        r"a|b & 50\% \\",
        r"1 & x\_y \\",
        r"\end{tabular}",
    ]


def sheet(**changes):
    fields = {"height": 300, "width": 300, "size": 9, "leading": 1.4, "paper": 250, "ink": 20}
    fields |= {"template": TEMPLATES["1"], "face": face_of("DejaVuSans"), "unspaced": False}
    return Sheet(**(fields | changes))


def test_a_page_shows_its_words_in_order(tmp_path):
    import typst

    from lvm_jax.pictures.pdf import page_text

    for template in ("1", "2nr"):
        on = sheet(template=TEMPLATES[template])
        assert fitting(TREE, on) == list(TREE)
        content = typst.compile(
            typst_page.page_markup(TREE, on).encode(), font_paths=on.face.fonts, format="pdf"
        )
        (tmp_path / "page.pdf").write_bytes(content)
        shown = "".join(page_text(tmp_path / "page.pdf", 0).split())
        for block in TREE:
            for text in words_on(block):
                text = "".join(text.split())
                assert text in shown
                shown = shown[shown.index(text) + len(text) :]
        assert shown.endswith("(3)")


def test_what_the_page_has_no_room_for_is_left_out():
    wide = Equation(row(*(plain("x") for _ in range(80))))
    high = Table(("a",), tuple((str(i),) for i in range(40)))
    text = Paragraph(("word " * 60,))
    blocks = [text, wide, high, *(Paragraph((f"{i} " * 300,)) for i in range(9)), text]
    kept = fitting(blocks, sheet())
    assert kept[0] == text
    assert 1 < len(kept) < 6
    assert wide not in kept
    assert high not in kept
    assert text not in kept[1:]
    # Nothing follows the heading.
    assert fitting([text, Heading(1, "last"), *blocks[3:]][:2], sheet()) == [text]
    assert fitting([Heading(1, "alone")], sheet()) == []


def test_a_word_that_is_wider_than_its_column_is_told():
    for template in ("1", "2"):
        on = sheet(template=TEMPLATES[template])
        long = "w" * (on.column_width // 5)
        with pytest.raises(ValueError, match="a word is wider than its column"):
            picture_of([Paragraph((long,))], on)
    with pytest.raises(ValueError, match=r"\d pages where one was expected"):
        picture_of([Paragraph(("word " * 900,))], sheet())


def test_articles_name_what_a_font_lacks(tmp_path):
    for font in ("NewComputerModern", "DejaVuSans"):
        source = Articles(texts="han", fonts=(font,), count=1, held_out=1, **SMALL)
        with pytest.raises(BadItem, match=rf"font {font} lacks \d+ characters: '.' \(U\+"):
            source.load("seen/0000000")
    (tmp_path / "texts.txt").write_text("\n".join(f"{chr(97 + i)}" * 90 for i in range(20)))
    source = Articles(
        texts=str(tmp_path / "texts.txt"), parts=("paragraphs",), count=1, held_out=1, **SMALL
    )
    with pytest.raises(BadItem, match="a word is wider than its column at size"):
        source.load("seen/0000000")


# Charts.


def test_both_renderers_say_the_same():
    by_matplotlib = dataclasses.replace(CHARTS, renderer="matplotlib")
    for key in CHARTS.keys()[:2]:
        ours, theirs = CHARTS.load(key), by_matplotlib.load(key)
        assert words(ours) == words(theirs)
        assert words(ours, "facets") == words(theirs, "facets")
        assert (ours["image"][0] != theirs["image"][0]).any()


@pytest.mark.parametrize("kind", ["bar", "line", "pie", "composite"])
def test_echarts_writes_every_word_and_number(kind, monkeypatch):
    svgs = []
    real = echarts._check_words

    def check(svg, chart, key):
        svgs.append(svg)
        real(svg, chart, key)

    monkeypatch.setattr(echarts, "_check_words", check)
    source = dataclasses.replace(CHARTS, kinds=(kind,), axis_titles=True, width=320)
    told = ast.literal_eval(words(source.load("seen/0000000"))[0])
    values = told.pop("values")
    several = isinstance(next(iter(values.values())), dict)
    shown = list(told.values()) + (list(values) if several else [])
    for series in values.values() if several else [values]:
        joined = [f"{label}: {number}" for label, number in series.items()]
        shown += joined if kind == "pie" else [str(n) for pair in series.items() for n in pair]
    for text in shown:
        assert f">{text}<" in svgs[0]


def test_labels_are_no_templates_and_the_same_chart_is_the_same_picture():
    chart = Chart("pie", "{b} <&>", "", "", {"": {"{c0}": 40, "{a|x}": 60}})
    look = (STYLES["0g"], "DejaVuSans", 9, 120, 200)
    script = echarts.script_path("")
    first = echarts.draw_echart(chart, *look, script=script, key="k")
    other = Chart("line", "t", "", "", {"": {"a": 3}})
    echarts.draw_echart(other, *look, script=script, key="k")
    again = echarts.draw_echart(chart, *look, script=script, key="k")
    np.testing.assert_array_equal(first, again)


def test_a_chart_without_room_is_told():
    long = {"a label of a pie": 40, "b": 60}
    look = (STYLES["0"], "DejaVuSans", 9, 80, 120)
    options = {"script": echarts.script_path(""), "key": "k"}
    with pytest.raises(BadItem, match=r"k: a label of the pie takes \d+ of 120 pixels"):
        echarts.draw_echart(Chart("pie", "t", "", "", {"": long}), *look, **options)
    with pytest.raises(BadItem, match="a word reaches the edge"):
        echarts.draw_echart(Chart("bar", "t" * 40, "", "", {"": {"a": 1}}), *look, **options)
    svg = '<svg xmlns="http://www.w3.org/2000/svg"><text>t</text><text>a</text></svg>'
    with pytest.raises(BadItem, match="ECharts left out '1'"):
        echarts._check_words(svg, Chart("bar", "t", "", "", {"": {"a": 1}}), "k")


def test_long_labels_of_a_pie_stay_in_the_picture_of_matplotlib():
    values = {"mmmmmmmmmm": 40, "wwwwwwwwww": 35, "b": 25}
    picture = draw_chart(
        Chart("pie", "t", "", "", {"": values}), STYLES["0"], "DejaVuSans", 10, 120, 250
    )
    assert (picture[:, :4] == 255).all()
    assert (picture[:, -4:] == 255).all()


@pytest.mark.parametrize("content", ["let a = 1;", "no JavaScript"])
def test_a_file_that_is_not_echarts_is_told(tmp_path, content):
    (tmp_path / "a.js").write_text(content)
    source = dataclasses.replace(CHARTS, echarts=str(tmp_path / "a.js"))
    with pytest.raises(UserError, match=r"a\.js is not echarts.min.js of Apache ECharts \(.*\)"):
        source.load("seen/0000000")


# PDF files.


@pytest.fixture
def papers(tmp_path):
    folder = tmp_path / "papers"
    (folder / "sub").mkdir(parents=True)
    text = written((10, 120, "first line"), (10, 100, "second line"))
    (folder / "good.pdf").write_bytes(pdf([text, written((10, 90, "page two"))]))
    (folder / "sub" / "scan.PDF").write_bytes(pdf(1))
    return folder


def test_pages_of_pdf_files_with_their_texts(papers):
    source = Pdfs(str(papers), side=72)
    assert source.keys() == ["good.pdf/00001", "good.pdf/00002", "sub/scan.PDF/00001"]
    item = source.load("good.pdf/00001")
    assert words(item) == ["first line\nsecond line"]
    assert words(item, "facets") == ["pdf=good.pdf"]
    assert item["image"][0].shape == (72, 36, 3)
    assert item["image"][0].min() < 200
    with pytest.raises(BadItem, match=r"^sub/scan.PDF/00001: it has no text layer"):
        source.load("sub/scan.PDF/00001")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pdf(1, trailer=ENCRYPTED), r"bad\.pdf is encrypted"),
        (pdf(1)[:60], r"bad\.pdf cannot be read \(cut or damaged"),
        (b"", r"bad\.pdf cannot be read"),
        (pdf(3), r"bad\.pdf has 3 pages, at most 2 are read: raise max_pages, or split the file"),
    ],
    ids=["encrypted", "cut", "empty", "long"],
)
def test_a_bad_pdf_is_one_bad_item(papers, content, message):
    (papers / "bad.pdf").write_bytes(content)
    source = Pdfs(str(papers), max_pages=2)
    assert source.keys()[0] == "bad.pdf"
    with pytest.raises(BadItem, match=message):
        source.load("bad.pdf")


def test_characters_without_unicode_are_counted_and_named(papers):
    (papers / "odd.pdf").write_bytes(pdf([written((10, 100, "a\x01\x02\x01"))]))
    with pytest.raises(BadItem, match=r"do not map 3 characters to Unicode \(U\+0001, U\+0002\)"):
        Pdfs(str(papers)).load("odd.pdf/00001")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Articles(parts=("poems",)), "there is no part 'poems'.*paragraphs"),
        (lambda: Articles(tables="html"), "there is no form of tables 'html'"),
        (lambda: Articles(templates=("9",)), "there is no template '9'"),
        (lambda: Articles(templates=("1",), held_out_templates=("1",)), "'1' is in templates and"),
        (lambda: Articles(sizes=(2, 9)), r"sizes are \(2, 9\)"),
        (lambda: Articles(fonts=("Nowhere",)).keys(), "font 'Nowhere' cannot be opened"),
        (lambda: Charts(renderer="pencil"), "there is no renderer 'pencil'"),
        (
            lambda: Charts(renderer="echarts", echarts="/nowhere.js").keys(),
            "there is no file /nowhere.js: name echarts.min.js",
        ),
        (lambda: Pdfs("/x", side=0), "side is 0"),
    ],
)
def test_wrong_fields_are_refused(make, message):
    with pytest.raises(UserError, match=message):
        make()


# The recipe.


def test_the_recipe_of_pages_becomes_shards(tmp_path, papers, plain_loop):
    (papers / "other.pdf").write_bytes(pdf([written((10, 90, "other"))]))
    config = vary_pages.get_config(f"runlocal,pdfs={papers}")
    kinds = {"articles_en", "charts_en", "echarts_en", "negatives", "pages_en", "pdfs"}
    assert set(config.entries) == kinds
    assert config.entries.pages_en.source.count == 4
    for name in ("pages_en", "charts_en", "negatives"):
        del config.entries[name]
    build_uvd.build(from_config(config), "", tmp_path / "one")
    folder = tmp_path / "one" / "vary_pages" / "1.0.0"
    found = verify(folder)
    assert found.source_sentences == {"articles_en": 6, "echarts_en": 6, "pdfs": 3}
    facets = {r.facets for r in sample_image_text(folder, 99, 0) if r.source == "pdfs"}
    assert facets == {("pdf=good.pdf",), ("pdf=other.pdf",)}  # `verify` found each in one split
    plain_loop[0] = -1
    build_uvd.build(from_config(config), "", tmp_path / "other")
    ours, theirs = (
        {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
        for out in (folder, tmp_path / "other" / "vary_pages" / "1.0.0")
    )
    assert ours == theirs


def test_the_recipe_in_two_languages_and_at_another_scale():
    config = vary_pages.get_config("han_font=/f.ttc,scale=0.0001,texts=/t")
    assert len(config.entries) == 9
    assert config.entries.pages_zh.source.fonts == ("/f.ttc",)
    assert config.entries.pages_en.source.licence == "unknown"
    assert config.entries.echarts_en.source.count == 50

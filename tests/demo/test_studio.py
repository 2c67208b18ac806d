"""What the page does, without the page: order, limits, candidates, and one line for every mistake."""

import dataclasses

import numpy as np
import pytest

from lvm_jax.demo.codes import Item
from lvm_jax.demo.drops import MAX_BYTES, Dropped
from lvm_jax.demo.lvm import studio as studio_module
from lvm_jax.demo.lvm import view
from lvm_jax.demo.lvm.studio import Reply, code_colours, how_much_changed, moved, removed
from lvm_jax.demo.lvm.tab import Desk, LvmTab
from lvm_jax.demo.view import notice
from lvm_jax.errors import UserError
from lvm_jax.inference import Sampling, VisualPrompt, encode_prompt
from lvm_jax.inference.cases import Case
from lvm_jax.inference.codec import decode_codes
from lvm_jax.inference.images import Engine
from lvm_jax.pictures.pixels import to_uint8


@pytest.fixture(scope="module")
def strip(studio, picture):
    return studio.coder.of_files([Dropped(f"{i}.png", picture(i)) for i in range(3)])


def test_pictures_become_the_codes_of_a_prompt(studio, strip, vqgan, picture, tmp_path):
    for i in range(3):
        (tmp_path / f"{i}.png").write_bytes(picture(i))
    prompt = VisualPrompt.sequential([tmp_path / f"{i}.png" for i in range(3)])
    codes_PN = encode_prompt(vqgan, prompt)
    assert np.array_equal(np.stack([item.codes_N for item in strip]), codes_PN)
    assert np.array_equal(strip[1].seen_HWC, to_uint8(decode_codes(vqgan, codes_PN))[1])
    assert strip[1].given_HWC.shape == (128, 128, 3)


def test_candidates_are_those_of_the_engine(studio, strip, vqgan, model):
    made = studio.next_images(strip, 3, Sampling(0.9, top_k=5), seed=7)
    engine = Engine(model, vqgan.tokens_per_image, vqgan.codebook_size)
    (codes_BIN,), (likelihoods,) = engine.generate_scored(
        [np.stack([item.codes_N for item in strip])],
        n_candidates=3,
        sampling=Sampling(0.9, top_k=5),
        seed=7,
    )
    assert np.array_equal(np.stack([item.codes_N for item in made]), codes_BIN[:, 0])
    assert all(item.given_HWC is None for item in made)
    assert [item.log_likelihood for item in made] == likelihoods.tolist()


def test_the_strip_is_ordered_and_removable(studio, strip):
    a, b, c = strip
    assert moved(strip, 0, 1) == (b, a, c)
    assert moved(strip, 2, -1) == (a, c, b)
    assert moved(strip, 0, -1) == moved(strip, 2, 5) == strip
    assert removed(strip, 1) == (a, c)
    for change in (lambda: moved(strip, 3, 1), lambda: removed(strip, -1)):
        with pytest.raises(UserError, match=r"the strip has no image .*: it has 3"):
            change()
    assert len(studio.add(strip, (a,))) == 4
    with pytest.raises(UserError, match="3 \\+ 3 images: a prompt holds at most 4"):
        studio.add(strip, strip)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "GIF", "BMP"])
def test_the_usual_kinds_are_read(studio, picture, kind):
    assert len(studio.coder.of_files([Dropped("x", picture(0, kind=kind))])) == 1


def test_what_is_refused_before_it_is_decoded(studio, picture, bomb, monkeypatch):
    def refused(name, content, match):
        with pytest.raises(UserError, match=match) as error:
            studio.coder.of_files([Dropped("good.png", picture(0)), Dropped(name, content)])
        assert "\n" not in str(error.value)

    assert len(bomb) < 1 << 20
    refused("bomb.png", bomb, "bomb.png: 8000x8000 pixels exceed the limit of 40000000")
    refused(
        "text.png", b"this is a text", "text.png: cannot be decoded .not an image of a known kind"
    )
    refused("cut.png", picture(0)[:900], "cut.png: cannot be decoded")
    refused("large.png", b"\0" * (MAX_BYTES + 1), "large.png has 20.0 MB: at most 20 MB")
    # Pillow reads these by starting Ghostscript, or through libraries with a history: the page does not.
    refused(
        "x.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "known kind"
    )
    refused("x.tiff", picture(0, kind="TIFF"), "known kind")
    with pytest.raises(UserError, match="0 pictures"):
        studio.coder.of_files([])


def test_questions_that_are_refused(studio, strip):
    for arguments, match in (
        (((), 1, Sampling(), 0), "the strip has 0 images"),
        ((strip, 0, Sampling(), 0), "0 candidates: ask for 1 to 8"),
        ((strip, 9, Sampling(), 0), "9 candidates"),
        ((strip, 1, Sampling(-1.0), 0), "temperature is -1.0"),
        ((strip, 1, Sampling(), -1), "seed is -1"),
        ((strip + strip, 1, Sampling(), 0), "the prompt has 6 images: at most 4"),
    ):
        with pytest.raises(UserError, match=match):
            studio.next_images(*arguments)


def test_a_page_whose_state_the_server_dropped_is_told_to_load_again(workdir, tmp_path, strip):
    """It still shows candidates; the server keeps the states of a few pages, for an hour."""
    tab = LvmTab.find(tmp_path / "none", [workdir])
    assert tab is not None
    shown = Desk(strip, strip[:2])
    assert len(tab.click(shown, {"do": "append", "index": 1}).strip) == len(strip) + 1
    for desk, index in ((tab.empty, 1), (shown, 2), (shown, -1)):
        with pytest.raises(UserError, match=f"no 'append' {index + 1}: load it again"):
            tab.click(desk, {"do": "append", "index": index})


def test_examples_hide_their_end(studio, strip):
    codes_PN = np.stack([item.codes_N for item in strip])
    case = Case(
        "003-x",
        "analogy",
        "scenes_depth",
        "k",
        ("image", "depth", "image"),
        codes_PN[:2],
        codes_PN[2:],
    )
    example = studio.example(case)
    assert example.name == "scenes depth"
    assert [len(example.strip), len(example.truth)] == [2, 1]
    assert np.array_equal(example.truth[0].codes_N, codes_PN[2])
    assert (
        studio.example(dataclasses.replace(case, source="files", name="007-a-cat")).name == "a cat"
    )


def test_another_query_takes_the_place_of_the_own(studio, strip):
    codes_PN = np.stack([item.codes_N for item in strip])
    roles = ("image", "depth", "image", "depth")

    def case(query: int) -> Case:
        prompt = codes_PN[[0, 1, query]]
        return Case("001-x", "analogy", "x", "k", roles, prompt, codes_PN[2:])

    example = studio.example(case(2), case(1))
    assert len(example.other) == 2
    own, other = studio.swapped(example, 2, Sampling(0.9), 0)
    assert np.array_equal(own.query.codes_N, codes_PN[2])
    assert np.array_equal(other.query.codes_N, codes_PN[1])
    greedy = Sampling(temperature=0.0)
    (expected,) = studio.next_images((*example.strip[:2], example.other[0]), 1, greedy, 0)
    assert np.array_equal(other.likeliest.codes_N, expected.codes_N)
    assert [len(reply.candidates) for reply in (own, other)] == [2, 2]
    with pytest.raises(UserError, match="x has no second query"):
        studio.swapped(studio.example(case(2)), 2, Sampling(), 0)


def test_how_much_an_answer_changed_is_said_in_words():
    def shade(value: int, code: int) -> Item:
        return Item(np.full(4, code, np.int32), np.full((8, 8, 3), value, np.uint8))

    def words(answers: tuple[Item, Item]) -> str:
        replies = [
            Reply(shade(query, 0), shade(truth, 0), answer, ())
            for query, truth, answer in zip((0, 51), (0, 204), answers)
        ]
        return how_much_changed(*replies)

    same = words((shade(10, 1), shade(10, 1)))
    assert same.startswith("The answer is the same to both queries: it does not depend on")
    assert "The queries differ by 20% of full scale, the answers by 0% and in 0% of" in same
    assert same.endswith("One of the two answers is nearer to its own truth than to the other's.")
    assert words((shade(10, 1), shade(12, 2))).startswith("The answer hardly changes")
    changed = words((shade(10, 1), shade(180, 2)))
    assert changed.startswith("The answer changes with the query.")
    assert "100% of their codes; the true answers differ by 80%. Both answers are" in changed


def test_the_mean_of_candidates_is_of_their_pixels():
    pictures = [Item(np.zeros(1, np.int32), np.full((2, 2, 3), v, np.uint8)) for v in (0, 255, 6)]
    assert (studio_module.mean_of(tuple(pictures)) == 87).all()


def test_codes_that_are_near_have_near_colours(studio, strip):
    line_KD = np.linspace(0, 1, 64)[:, None] * np.array([[1.0, 2.0, -1.0, 0.5]])
    colours = code_colours(line_KD).astype(int)
    steps = np.abs(np.diff(colours[:, 0]))
    assert steps.max() <= 4
    assert abs(colours[0, 0] - colours[-1, 0]) == 200
    side = int(len(strip[0].codes_N) ** 0.5)
    codes_map = studio.code_map(strip[0])
    assert codes_map.shape == (side, side, 3)
    assert np.array_equal(codes_map[0, 1], studio.colours_K3[strip[0].codes_N[1]])


def test_nothing_that_a_user_names_becomes_html(studio, strip):
    assert "<script" not in notice("<script>alert(1)</script>")
    example = studio_module.Example("<b onclick=x>", strip, ())
    assert "<b " not in view.examples_row([example])


def test_the_view_of_a_strip(studio, strip):
    html = view.strip_table(strip, studio)
    assert html.count("<li>") == 3
    assert html.count("data:image/png") == 9
    assert "room for 1<" in html
    assert "type=file" not in view.strip_table((*strip, strip[0]), studio)
    began_as_codes = studio.coder.of_codes(np.stack([item.codes_N for item in strip]))
    assert view.strip_table(began_as_codes, studio).count("data:image/png") == 6
    assert view.strip_table((strip[0], began_as_codes[1]), studio).count("class=none") == 1
    assert "append candidate 3" in view.candidates_row(strip, ())
    assert "what the corpus has" in view.candidates_row(strip, strip[:1])
    assert view.candidates_row((), strip[:1]) == ""

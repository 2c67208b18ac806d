"""Prompts from JSON lines and folders: the right pictures in the right order, and mistakes named by line."""

import json

import numpy as np
import pytest
from etils import epath
from flax import nnx
from PIL import Image

from lvm_jax.errors import UserError
from lvm_jax.inference import prompt_files
from lvm_jax.inference.codec import encode_images
from lvm_jax.inference.prompt_files import read_prompts, split_pair
from lvm_jax.models import VQGAN, presets


@pytest.fixture(scope="module")
def vqgan() -> VQGAN:
    return VQGAN(presets.vqgan("debug"), rngs=nnx.Rngs(0))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    root = tmp_path_factory.mktemp("pictures")
    for i in range(6):
        pixels = np.random.default_rng(i).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"{i}.png")
    return root


def codes_of(vqgan, pictures, *numbers):
    return encode_images(
        vqgan, np.stack([np.asarray(Image.open(pictures / f"{i}.png")) for i in numbers])
    )


def write(path, *lines):
    path.write_text("\n".join(json.dumps(line) for line in lines) + "\n\n")
    return path


def test_the_published_formats(vqgan, pictures, tmp_path):
    lines = write(
        tmp_path / "prompts.jsonl",
        {"input": ["0.png", "1.png", "2.png"], "target": ["3.png"]},
        {"input": ["4.png"], "output": "some/where/out.jpg"},
        {"pairs": [["0.png", "1.png"], ["2.png", "3.png"]], "query": "4.png"},
        {
            "examples": [["0.png", "1.png", "2.png"]],
            "query": ["3.png", "4.png"],
            "target": ["5.png"],
        },
    )
    cases = read_prompts(lines, vqgan, pictures)
    assert [case.name for case in cases] == ["00000", "some/where/out", "00002", "00003"]
    loaded = [case.ask().case() for case in cases]
    orders = [(0, 1, 2), (4,), (0, 1, 2, 3, 4), (0, 1, 2, 3, 4)]
    for case, order in zip(loaded, orders):
        assert np.array_equal(case.prompt_PN, codes_of(vqgan, pictures, *order))
        assert case.sizes == ((16, 16),) * len(order)
    assert np.array_equal(loaded[0].truth_IN, codes_of(vqgan, pictures, 3))
    assert loaded[1].truth_IN.shape == (0, vqgan.tokens_per_image)
    assert [case.kind for case in loaded] == ["sequential", "sequential", "analogy", "analogy"]
    assert loaded[0].roles == ("frame",) * 4
    assert loaded[3].roles == (
        *("input", "annotation_1", "annotation_2"),
        *("input", "annotation_1", "annotation_2"),
    )
    for case in cases:
        case.check(context_images=6)
    with pytest.raises(UserError, match=r"prompts.jsonl line 3 has 5 images: at most 4 leave room"):
        cases[2].check(context_images=5)


def test_a_known_answer_needs_an_image_before_it(vqgan, pictures, tmp_path):
    lines = write(tmp_path / "prompts.jsonl", {"input": []}, {"input": [], "target": ["0.png"]})
    unconditional, known = read_prompts(lines, vqgan, pictures)
    unconditional.check(context_images=5)
    with pytest.raises(
        UserError, match=r"prompts.jsonl line 2 has a target and 0 images before it"
    ):
        known.check(context_images=5)


def test_composed_prompts(vqgan, pictures, tmp_path):
    pairs, examples = [["0.png", "1.png"]], [["2.png", "3.png", "4.png"]]
    lines = write(
        tmp_path / "prompts.jsonl",
        {
            "parts": [{"pairs": pairs}, {"examples": examples, "query": ["5.png"]}],
            "target": ["0.png", "1.png"],
        },
        {
            "parts": [
                {"examples": examples},
                {"input": ["5.png"]},
                {"pairs": pairs, "query": "2.png"},
            ]
        },
    )
    cases = read_prompts(lines, vqgan, pictures)
    first, second = (case.ask().case() for case in cases)
    assert np.array_equal(first.prompt_PN, codes_of(vqgan, pictures, 0, 1, 2, 3, 4, 5))
    assert first.roles[2:] == ("input", "annotation_1", "annotation_2") * 2
    assert np.array_equal(second.prompt_PN, codes_of(vqgan, pictures, 2, 3, 4, 5, 0, 1, 2))
    assert [first.kind, second.kind] == ["analogy", "analogy"]
    cases[1].check(context_images=8)
    with pytest.raises(UserError, match="line 2 has 7 images: at most 6"):
        cases[1].check(context_images=7)
    wrong = write(
        tmp_path / "w.jsonl", {"parts": [{"pairs": pairs, "query": "2.png"}, {"input": ["0.png"]}]}
    )
    with pytest.raises(
        UserError, match=r"line 1, part 1 has \['pairs', 'query'\]: .* only the last has a query"
    ):
        read_prompts(wrong, vqgan)
    wrong = write(tmp_path / "w.jsonl", {"parts": [{"pairs": pairs}], "input": ["0.png"]})
    with pytest.raises(UserError, match=r"line 1 has \['input'\]"):
        read_prompts(wrong, vqgan)


def test_paths_are_relative_to_the_file(vqgan, pictures):
    lines = write(pictures / "here.jsonl", {"input": ["0.png"]})
    assert len(read_prompts(lines, vqgan)[0].ask().case().prompt_PN) == 1
    absolute = write(pictures / "absolute.jsonl", {"input": [str(pictures / "1.png")]})
    case = read_prompts(absolute, vqgan, "/nowhere")[0].ask().case()
    assert np.array_equal(case.prompt_PN, codes_of(vqgan, pictures, 1))


def test_the_question_follows_the_pictures(vqgan, pictures, tmp_path):
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes((pictures / "0.png").read_bytes())
    lines = write(tmp_path / "p.jsonl", {"input": ["a.png", "b.png"]})
    before = read_prompts(lines, vqgan)[0].ask().described()
    assert read_prompts(lines, vqgan)[0].ask().described() == before
    (tmp_path / "b.png").write_bytes((pictures / "1.png").read_bytes())
    assert read_prompts(lines, vqgan)[0].ask().described() != before


def test_every_file_is_read_once_and_decoded_only_where_it_is_asked(vqgan, pictures, monkeypatch):
    read, opened = [], []
    read_bytes, load_image = type(epath.Path()).read_bytes, prompt_files.load_image
    monkeypatch.setattr(
        type(epath.Path()), "read_bytes", lambda path: read.append(path.name) or read_bytes(path)
    )
    monkeypatch.setattr(
        prompt_files,
        "load_image",
        lambda content, **options: opened.append(1) or load_image(content, **options),
    )
    lines = write(pictures / "twice.jsonl", {"input": ["0.png", "1.png", "0.png"]})
    question = read_prompts(lines, vqgan)[0].ask()
    assert opened == []
    case = question.case()
    assert sorted(name for name in read if name.endswith("png")) == ["0.png", "1.png"]
    assert np.array_equal(case.prompt_PN, codes_of(vqgan, pictures, 0, 1, 0))


def test_folders(vqgan, pictures, tmp_path, monkeypatch):
    layout = {
        "clip/1.png": 0, "clip/2.png": 1, "clip/target/x.png": 2,
        "pairs/1_in.png": 0, "pairs/1_out.png": 1, "pairs/2_in.png": 2, "pairs/2_out.png": 3, "pairs/query.png": 4,
    }  # fmt: skip
    for name, number in layout.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes((pictures / f"{number}.png").read_bytes())
    clip, pairs = (case.ask().case() for case in read_prompts(tmp_path, vqgan))
    assert np.array_equal(clip.prompt_PN, codes_of(vqgan, pictures, 0, 1))
    assert np.array_equal(clip.truth_IN, codes_of(vqgan, pictures, 2))
    assert np.array_equal(pairs.prompt_PN, codes_of(vqgan, pictures, 0, 1, 2, 3, 4))
    assert pairs.roles == ("input", "answer") * 2 + ("input",)
    (alone,) = read_prompts(tmp_path / "clip", vqgan)
    assert (alone.name, alone.files()) == ("clip", read_prompts(tmp_path, vqgan)[0].files())
    monkeypatch.chdir(tmp_path / "pairs")
    assert [case.name for case in read_prompts(".", vqgan)] == ["pairs"]
    (tmp_path / "clip" / "more").mkdir()
    with pytest.raises(
        UserError, match=r"clip holds images, as a prompt does, and the folder more"
    ):
        read_prompts(tmp_path / "clip", vqgan)
    (tmp_path / "pairs" / "2_in.png").unlink()
    with pytest.raises(UserError, match="1 queries and 3 other images"):
        read_prompts(tmp_path, vqgan)


def test_the_images_of_a_folder_come_by_their_numbers(vqgan, pictures, tmp_path):
    clip = tmp_path / "clip"
    (clip / "target").mkdir(parents=True)
    for number in range(1, 13):
        (clip / f"{number}.png").write_bytes((pictures / "0.png").read_bytes())
        (clip / "target" / f"{number}.png").write_bytes((pictures / "0.png").read_bytes())
    (clip / "._1.png").write_bytes(b"the shadow of a file, from a Mac")
    (case,) = read_prompts(tmp_path, vqgan)
    in_order = [f"{number}.png" for number in range(1, 13)]
    assert case.files() == [
        str(folder / name) for folder in (clip, clip / "target") for name in in_order
    ]
    (tmp_path / "none" / "target").mkdir(parents=True)
    with pytest.raises(UserError, match="none holds no images: each folder of --prompt"):
        read_prompts(tmp_path, vqgan)


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["{not json"], r"p\.jsonl line 1 is not JSON"),
        (['{"images": ["0.png"]}'], r"line 1 has \['images'\]: it needs"),
        (["[1, 2]"], "line 1 has list"),
        (['{"input": "0.png"}'], "input is '0.png': give a list of paths"),
        (['{"input": [3]}'], r"input is \[3\]"),
        (['{"pairs": [["0.png", "1.png"]], "query": ["2.png"]}'], "give one path"),
        (['{"input": ["0.png"], "output": "../x.png"}'], "must be a relative path"),
        (['{"input": ["0.png"], "output": "/x.png"}'], "must be a relative path"),
        (['{"input": ["0.png"], "output": "a/./x.png"}'], "must be a relative path"),
        (['{"input": ["0.png"], "output": "a\\\\x.png"}'], "no backslash"),
        (['{"input": ["0.png"], "output": "a\\u0000x"}'], "control character"),
        (
            ['{"input": ["0.png"], "output": "x"}'] * 2,
            "line 2 and p.jsonl line 1 would both write x",
        ),
        ([], "holds 0 prompts"),
    ],
)
def test_lines_that_are_wrong(vqgan, tmp_path, lines, words):
    (tmp_path / "p.jsonl").write_text("\n".join(lines))
    with pytest.raises(UserError, match=words):
        read_prompts(tmp_path / "p.jsonl", vqgan)


def test_names_as_people_give_them(vqgan, pictures, tmp_path):
    names = [
        "photo (1)",
        "it's, [a] & b",
        "e\u0301te\u0301",
        "\u732b",
    ]  # the third as a Mac writes it
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "0.png").write_bytes((pictures / "0.png").read_bytes())
    assert sorted(case.name for case in read_prompts(tmp_path, vqgan)) == sorted(names)


def test_lines_as_editors_and_programs_write_them(vqgan, pictures, tmp_path):
    """With Windows' mark and line ends, with a line separator inside a name, with a path of a bucket."""
    lines = tmp_path / "p.jsonl"
    given = ["a\u2028b.png", "gs://bucket/c.png", str(pictures / "0.png")]
    lines.write_bytes(
        b"\xef\xbb\xbf" + json.dumps({"input": given}, ensure_ascii=False).encode() + b"\r\n\r\n"
    )
    (case,) = read_prompts(lines, vqgan)
    assert case.files() == [str(tmp_path / "a\u2028b.png"), *given[1:]]
    lines.write_bytes('{"input": ["\xe9.png"]}'.encode("latin-1"))
    with pytest.raises(UserError, match=r"p\.jsonl is not UTF-8 .*: save it as UTF-8"):
        read_prompts(lines, vqgan)


def test_pictures_that_are_none(vqgan, pictures, tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    cases = read_prompts(
        write(
            tmp_path / "p.jsonl",
            {"input": ["text.png"]},
            {"input": ["gone.png"]},
            {"pairs": [], "query": str(pictures / "0.png")},
            {"input": [""]},
            {"input": ["text.png"], "target": [["text.png"]]},
        ),
        vqgan,
    )
    with pytest.raises(UserError, match=r"line 1: the prompt image .*text\.png: cannot be decoded"):
        cases[0].ask().case()
    cases[0].check(16)  # which reads no picture
    with pytest.raises(UserError, match=r"line 2: .*gone\.png does not exist"):
        cases[1].check(16)
    with pytest.raises(UserError, match="line 3: the analogy prompt has 0 pairs"):
        cases[2].check(16)
    with pytest.raises(UserError, match=r"line 4: .* is a folder: correct the path"):
        cases[3].check(16)
    with pytest.raises(UserError, match=r"line 5: target: an image has shape"):
        cases[4].check(16)
    with pytest.raises(UserError, match=r"does not exist: give a \.jsonl file"):
        read_prompts(tmp_path / "nothing.jsonl", vqgan)


@pytest.mark.parametrize(
    "pair",
    [
        ("a.png", "b.png"),
        ("gs://bucket/a.png", "gs://bucket/b.png"),
        ("gs://bucket/a.png", "b.png"),
        ("/data/a.png", "s3://bucket/b.png"),
        ("C:/data/a.png", "D:\\data\\b.png"),
        ("a", "b"),
        ("/data/a.png", "/data/b.png"),
    ],
)
def test_a_pair_is_split_between_its_paths(pair):
    assert split_pair(":".join(pair)) == list(pair)


def test_names_with_colons_are_split_where_the_files_are(tmp_path):
    one, other = f"{tmp_path}/12:30.png", f"{tmp_path}/12:31.png"
    (tmp_path / "12:30.png").touch()
    with pytest.raises(
        UserError, match=r"no image:answer of two files: write such names in a \.jsonl"
    ):
        split_pair(f"{one}:{other}")
    (tmp_path / "12:31.png").touch()
    assert split_pair(f"{one}:{other}") == [one, other]


@pytest.mark.parametrize(
    "text", ["a.png", "a.png:", ":b.png", "gs://bucket/a.png", "C:/a.png", ":"]
)
def test_what_is_no_pair_is_refused(text):
    with pytest.raises(UserError, match="which is no image:answer of two files"):
        split_pair(text)

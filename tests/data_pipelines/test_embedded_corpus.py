import hashlib
import json
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from data_pipelines import assets, embedded_corpus
from data_pipelines.embedded_corpus import Settings
from data_pipelines.sources import AnnotatedImages, FrameFolders, ImageFolder, VideoFolder
from data_pipelines.synthetic import scenes, toys
from lvm_jax import files
from lvm_jax.errors import UserError
from lvm_jax.pictures import annotation_maps as maps

SMALL = Settings(size=16, scenes=3, clips=2, turntables=2, seed=7)


def digest(folder):
    """Relative path -> hash of every file, hidden ones too."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus") / "made"
    counts = embedded_corpus.build(folder, SMALL)
    return folder, counts


def test_all_five_kinds_are_there(corpus):
    folder, counts = corpus
    assert counts == {"scenes": 3, "clips": 2, "turntables": 2, "photos": 128, "videos": 13}
    assert len(ImageFolder(str(folder / "photos")).keys()) == 128
    assert len(VideoFolder(str(folder / "videos")).keys()) == 13
    scene = AnnotatedImages(str(folder / "scenes")).load("00001")
    assert set(scene) == {
        "image", "segmentation", "depth", "normals", "edges", "boxes", "keypoints"
    }  # fmt: skip
    assert {images[0].shape for images in scene.values()} == {(16, 16, 3)}
    clip = FrameFolders(str(folder / "clips")).load("00000")
    assert {role: len(images) for role, images in clip.items()} == {"frame": 16, "segmentation": 16}
    views = FrameFolders(str(folder / "turntables"), role="view").load("00001")["view"]
    assert len(views) == 24
    assert not [path for path in folder.rglob(".*")]
    assert (folder / "LICENSES.md").read_bytes() == (assets.ROOT / "LICENSES.md").read_bytes()


def test_description_tells_how_to_read_it(corpus):
    folder, counts = corpus
    told = json.loads((folder / "corpus.json").read_text())
    assert told["counts"] == counts
    assert told["settings"]["seed"] == 7
    segmentation = np.asarray(Image.open(folder / "scenes" / "00000" / "segmentation.png"))
    colours = {tuple(c) for c in told["classes"].values()} | {(0, 0, 0)}
    assert {tuple(c) for c in segmentation.reshape(-1, 3).tolist()} <= colours
    ids = set(np.unique(maps.rgb_to_ids(segmentation))) - {0}
    rng = embedded_corpus.item_rng(SMALL, "scenes", "00000")
    kinds = {toys.CLASS_IDS[body.kind] for body in scenes.random_scene(rng).bodies}
    assert ids <= kinds
    assert ids


def test_leftovers_and_losses_are_made_good(corpus, tmp_path):
    """A kill leaves no corpus.json, hidden halves, and items missing: the same bytes come back."""
    folder, _ = corpus
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    (broken / "corpus.json").unlink()
    (broken / ".corpus.started.json").write_text(json.dumps(vars(SMALL)))
    shutil.rmtree(broken / "scenes" / "00001")
    (broken / "clips" / "00001").rename(broken / "clips" / ".00001")
    (broken / "clips" / ".00001" / "image" / "015.png").rename(
        broken / "clips" / ".00001" / "x.png"
    )
    (broken / "photos" / assets.load_pack()[0].path.name).unlink()
    files.temporary_name(broken / "photos" / "a.webp").touch()
    assert embedded_corpus.build(broken, SMALL, workers=2)["scenes"] == 3
    assert digest(broken) == digest(folder)


def test_complete_corpus_is_left_alone(corpus, capsys):
    folder, counts = corpus
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert embedded_corpus.build(folder, SMALL) == counts
    assert "nothing to do" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_other_settings_are_refused(corpus, tmp_path):
    folder, _ = corpus
    with pytest.raises(UserError, match=r"seed=7, asked for seed=8.*delete that folder"):
        embedded_corpus.build(folder, Settings(size=16, scenes=3, clips=2, turntables=2, seed=8))
    started = tmp_path / "started"
    started.mkdir()
    (started / ".corpus.started.json").write_text(json.dumps(vars(SMALL)))
    with pytest.raises(UserError, match="size=16, asked for size=64"):
        embedded_corpus.build(started, Settings())


def test_foreign_folders_and_files_are_not_touched(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="holds other files"):
        embedded_corpus.build(tmp_path, SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    with pytest.raises(UserError, match="is a file"):
        embedded_corpus.build(tmp_path / "thesis.txt", SMALL)


@pytest.mark.parametrize(("field", "value"), [("size", 8), ("size", 4096), ("scenes", -1)])
def test_settings_have_limits(field, value):
    with pytest.raises(UserError, match=f"{field} is {value}"):
        Settings(**{field: value})


def test_killed_run_continues_to_the_same_bytes(corpus, tmp_path):
    folder, _ = corpus
    output = tmp_path / "killed"
    command = [sys.executable, "-m", "data_pipelines.embedded_corpus", f"--output={output}"]
    command += [f"--{name}={value}" for name, value in vars(SMALL).items()]
    process = subprocess.Popen([*command, "--workers=1"], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (output / "scenes" / "00000").exists() and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (output / "scenes" / "00000").exists()
    assert not (output / "corpus.json").exists()
    done = subprocess.run([*command, "--workers=1"], capture_output=True, text=True, check=True)
    assert "3 scenes, 2 clips, 2 turntables, 128 photos, 13 videos" in done.stdout
    assert digest(output) == digest(folder)

    other = subprocess.run([*command, "--size=32"], capture_output=True, text=True, check=False)
    assert other.returncode == 2
    assert other.stderr.startswith("error: ")
    assert other.stderr.count("\n") == 1


def test_a_stable_part_of_each_sort_is_held_out(corpus):
    folder, _ = corpus
    listed = (folder / "validation.txt").read_text().splitlines()
    assert listed == embedded_corpus.held_out(SMALL)
    assert all((folder / path).exists() for path in listed)
    default = set(embedded_corpus.held_out(Settings()))
    for sort, total in [("photos", 128), ("scenes", 700), ("clips", 160), ("turntables", 160)]:
        share = sum(path.startswith(f"{sort}/") for path in default) / total
        assert 0.1 < share < 0.14
    films = {}
    for item in assets.load_pack():
        if item.file.startswith("videos/"):
            film = item.file.removesuffix(".mp4").rstrip("0123456789").rstrip("_")
            films.setdefault(film, set()).add(item.file in default)
    assert {len(sides) for sides in films.values()} == {1}, "a film is on both sides"
    assert {side for sides in films.values() for side in sides} == {True, False}

"""Sources that make their pictures: composites of cut-outs, walks through a game, simulated bodies."""

import importlib.util
import pickle
import sys
import threading
import types

import numpy as np
import pytest
from PIL import Image

from data_pipelines.sources import BadItem, Cutouts, DmControlClips, DoomClips, control_suite
from lvm_jax.errors import UserError
from lvm_jax.pictures import annotation_maps as maps


@pytest.fixture
def folders(tmp_path):
    """A red disc with a transparent border, on blue or green backgrounds."""
    for name, colour in (("sea.png", (0, 0, 200)), ("field.jpg", (0, 200, 0))):
        (tmp_path / "photos").mkdir(exist_ok=True)
        Image.new("RGB", (90, 70), colour).save(tmp_path / "photos" / name)
    rows, columns = np.mgrid[:40, :60]
    disc = np.zeros((40, 60, 4), np.uint8)
    disc[(rows - 20) ** 2 + (columns - 30) ** 2 < 15**2] = (220, 0, 0, 255)
    (tmp_path / "objects" / "round").mkdir(parents=True)
    Image.fromarray(disc).save(tmp_path / "objects" / "round" / "disc.png")
    Image.new("RGB", (9, 9)).save(tmp_path / "objects" / "solid.png")
    Image.new("RGBA", (9, 9)).save(tmp_path / "objects" / "void.png")
    return {"root": str(tmp_path / "objects"), "backgrounds": str(tmp_path / "photos")}


def test_a_composite_has_the_exact_mask_and_box_of_its_object(folders):
    source = Cutouts(**folders, variants=12, size=64, scale=(0.3, 0.6))
    keys = [key for key in source.keys() if key.startswith("round/disc.png#")]  # noqa: SIM118
    assert len(keys) == 12
    sides, backgrounds = set(), set()
    for key in keys:
        item = source.load(key)
        image, mask, box = (item[role][0] for role in ("image", "mask", "box"))
        assert image.shape == mask.shape == box.shape == (64, 64, 3)
        inside = mask[..., 0] > 0
        red = image[..., 0] > 110
        assert (red != inside).mean() < 0.01
        rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
        expected = np.zeros((64, 64), bool)
        expected[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = True
        np.testing.assert_array_equal(box[..., 0] > 0, expected)
        assert 0.3 * 64 - 2 <= len(columns) <= 0.6 * 64 + 1
        sides.add(len(columns))
        backgrounds.add(image[~inside].argmax(-1)[0])
        np.testing.assert_array_equal(image, source.load(key)["image"][0])
    assert len(sides) > 4
    assert backgrounds == {1, 2}
    for key, words in (("solid.png#0", "has no alpha channel"), ("void.png#0", "transparent")):
        with pytest.raises(BadItem, match=f"^{key}: .*{words}"):
            source.load(key)


def test_impossible_composites_are_refused(folders):
    for wrong in ({"variants": 0}, {"scale": (0.9, 0.5)}, {"scale": (0.5, 1.5)}):
        with pytest.raises(UserError):
            Cutouts(**folders, **wrong)
    with pytest.raises(UserError, match="backgrounds is empty"):
        Cutouts(folders["root"]).keys()


def test_doom_without_its_package_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "vizdoom", None)
    source = DoomClips(maps=("map02", "map01"), episodes=2)
    assert source.keys() == ["map01/000", "map01/001", "map02/000", "map02/001"]
    assert pickle.loads(pickle.dumps(source)) == source
    with pytest.raises(UserError, match=r"vizdoom is not installed: pip install vizdoom"):
        source.load("map01/000")
    with pytest.raises(UserError, match="at least 1"):
        DoomClips(episodes=0)


def test_a_walk_through_a_map(tmp_path, monkeypatch):
    pytest.importorskip("vizdoom")
    monkeypatch.chdir(tmp_path)
    source = DoomClips(n_frames=12)
    item = source.load("map03/000")
    assert {role: len(images) for role, images in item.items()} == dict.fromkeys(item, 12)
    assert {image.shape for images in item.values() for image in images} == {(240, 320, 3)}
    assert len({frame.tobytes() for frame in item["frame"]}) > 8, "the agent stands still"
    assert np.std(item["depth"]) > 15
    again, other = source.load("map03/000"), source.load("map03/001")
    np.testing.assert_array_equal(item["frame"], again["frame"])
    assert (item["frame"][-1] != other["frame"][-1]).any()
    assert not [p for p in tmp_path.rglob("*") if p.is_file()], "the game left files behind"


def test_dm_control_without_its_package_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "mujoco", None)
    source = DmControlClips(tasks=("walker/walk", "fish/swim"), episodes=2, n_frames=3)
    assert source.keys() == [
        *("fish/swim/000", "fish/swim/001", "walker/walk/000", "walker/walk/001")
    ]
    assert pickle.loads(pickle.dumps(source)) == source
    with pytest.raises(UserError, match=r"pip install 'lvm_jax\[mujoco\]'"):
        source.load("fish/swim/000")
    for wrong in ({"tasks": ()}, {"episodes": 0}, {"every": 0.0}):
        with pytest.raises(UserError, match="may not be empty, every must be above 0"):
            DmControlClips(**wrong)


class FakeBall:
    """What the source uses of dm_control: a task of 0.02 s a step, and its model."""

    def __init__(self):
        self.limit, self.steps, self.actions = 100, 0, []
        self.task = types.SimpleNamespace(random=np.random.RandomState(0))
        visual = types.SimpleNamespace(
            quality=types.SimpleNamespace(), global_=types.SimpleNamespace()
        )
        model = types.SimpleNamespace(
            vis=visual,
            ptr=self,
            mat_rgba=np.ones((2, 4)),
            ncam=2,
            id2name=lambda i, kind: ["egocentric", "side"][i],
            geom_bodyid=np.array([0, 3]),
            ngeom=2,
        )
        self.physics = types.SimpleNamespace(model=model, data=types.SimpleNamespace(ptr=self))

    def reset(self):
        self.steps = 0

    def control_timestep(self):
        return 0.02

    def action_spec(self):
        return types.SimpleNamespace(shape=(2,), minimum=np.array([0, -1]), maximum=np.ones(2))

    def step(self, action):
        self.actions.append(action)
        self.steps += 1
        return types.SimpleNamespace(last=lambda: self.steps >= self.limit)


class FakeRenderer:
    """Frames are the number of steps; in the first row a body, a skin, the world and what is no geometry."""

    def __init__(self, ball, height, width):
        self.scene = types.SimpleNamespace(flags=[1])
        self.shape, self.mode = (height, width), "colour"
        self.enable_depth_rendering = lambda: setattr(self, "mode", "depth")
        self.enable_segmentation_rendering = lambda: setattr(self, "mode", "segmentation")
        self.disable_depth_rendering = lambda: setattr(self, "mode", "colour")
        self.disable_segmentation_rendering = self.disable_depth_rendering

    def update_scene(self, ball, camera):
        assert camera == 1, "egocentric shows nothing of the body"
        self.steps = ball.steps

    def render(self):
        if self.mode == "depth":
            depth_HW = np.full(self.shape, 4.0, np.float32)
            depth_HW[0] = 2.0 + self.steps
            return depth_HW
        if self.mode == "segmentation":
            seen = np.full((*self.shape, 2), -1, np.int32)
            seen[0, :4] = (1, 5), (9, 7), (0, 5), (1, 6)
            return seen
        return np.full((*self.shape, 3), self.steps, np.uint8)


@pytest.fixture
def fake_ball(monkeypatch):
    ball = FakeBall()
    suite = types.SimpleNamespace(ALL_TASKS=(("ball", "roll"),), load=lambda domain, task: ball)
    mujoco = types.SimpleNamespace(
        Renderer=FakeRenderer,
        mjtObj=types.SimpleNamespace(mjOBJ_GEOM=5, mjOBJ_SKIN=7),
        mjtRndFlag=types.SimpleNamespace(mjRND_REFLECTION=0),
    )
    control = types.SimpleNamespace(PhysicsError=RuntimeError)
    for name, module in {
        "mujoco": mujoco,
        "dm_control": types.SimpleNamespace(suite=suite),
        "dm_control.rl": types.SimpleNamespace(control=control),
    }.items():
        monkeypatch.setitem(sys.modules, name, module)
    control_suite._stage.cache_clear()
    yield ball
    control_suite._stage.cache_clear()


def test_a_clip_of_a_simulation_is_drawn_at_its_pace(fake_ball):
    source = DmControlClips(tasks=("ball/roll",), n_frames=3, every=0.08, size=8)
    item = source.load("ball/roll/000")
    assert [frame[0, 0, 0] for frame in item["frame"]] == [0, 4, 8]
    # The clip's nearest point is 2 away, in its first frame.
    assert [int(depth[0, 0, 0]) for depth in item["depth"]] == [255, 85, 51]
    assert {int(depth[1, 0, 0]) for depth in item["depth"]} == {128}
    parts = maps.rgb_to_ids(item["segmentation"][0])
    assert parts[0, :5].tolist() == [3, 1, 0, 0, 0]
    actions = np.array(fake_ball.actions)
    assert actions.shape == (8, 2)
    assert (actions[:, 0] >= 0).all()
    assert np.abs(actions).max() <= 1
    assert np.ptp(actions, axis=0).min() > 0, "an actuator does not move"
    again = source.load("ball/roll/000")
    np.testing.assert_array_equal(actions, fake_ball.actions[8:])
    np.testing.assert_array_equal(item["depth"], again["depth"])
    plain = DmControlClips(tasks=("ball/roll",), n_frames=3, size=8, annotations=())
    assert set(plain.load("ball/roll/000")) == {"frame"}


def test_a_clip_that_ends_early_and_a_task_that_is_none(fake_ball):
    fake_ball.limit = 8
    source = DmControlClips(tasks=("ball/roll",), n_frames=3, every=0.08, size=8)
    with pytest.raises(BadItem, match=r"^ball/roll/000: ends before its frames"):
        source.load("ball/roll/000")
    for task, words in (("ball/run", "the suite has ball/roll"), ("cube/roll", "no such domain")):
        with pytest.raises(UserError, match=f"'{task}': .*{words}"):
            DmControlClips(tasks=(task,)).load(f"{task}/000")


def test_a_walker_walks():
    if importlib.util.find_spec("dm_control") is None:  # to import it would choose how it draws
        pytest.skip("dm_control is not installed")
    source = DmControlClips(tasks=("walker/walk", "reacher/easy"), n_frames=6, size=64)
    item = source.load("walker/walk/001")
    assert {role: len(images) for role, images in item.items()} == dict.fromkeys(item, 6)
    assert {image.shape for images in item.values() for image in images} == {(64, 64, 3)}
    assert len({frame.tobytes() for frame in item["frame"]}) == 6, "nothing moves"
    assert np.max(item["depth"]) == 255
    assert len(np.unique(maps.rgb_to_ids(item["segmentation"][0]))) >= 4
    # Neither what was drawn before nor the thread changes a clip.
    source.load("walker/walk/002")
    found = []
    thread = threading.Thread(target=lambda: found.append(source.load("walker/walk/001")))
    thread.start()
    thread.join()
    for again in (source.load("walker/walk/001"), found[0]):
        for role, images in item.items():
            np.testing.assert_array_equal(images, again[role])

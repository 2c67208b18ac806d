"""Clips of Freedoom as a walking agent sees it, with depth and instances, from ViZDoom."""

import atexit
import contextlib
import dataclasses
import shutil
import tempfile
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np

from data_pipelines.chance import hash64
from data_pipelines.items import Picture, PictureItem
from data_pipelines.sources.base import BadItem
from lvm_jax.data.sentences.visual_sentence import Category
from lvm_jax.errors import UserError
from lvm_jax.pictures import annotation_maps as maps
from lvm_jax.pictures.pixels import to_float


@dataclasses.dataclass(frozen=True)
class DoomClips:
    """`episodes` walks through each map: `{"frame": [...], "depth": [...], "segmentation": [...]}`.

    The maps are those of Freedoom 2, which ViZDoom ships (`pip install vizdoom`; BSD). The agent walks ahead and turns
    towards the more distant side, with some randomness. Depth is grey, 255 (1 - sqrt(d / 255)), where d is the game's
    8-bit depth. That is linear in distance and made for long views; the root gives near rooms more levels. Instances
    have palette colours; floor and walls are background. A clip depends on its key, `map01/003`. To hold out whole
    maps, set an entry's `together="([^/]+)/.*"`.

    Attributes:
      maps: names, map01 to map32.
      episodes: clips per map.
      n_frames: of a clip.
      every: game ticks between frames; there are 35 per second.
      seed: of the walks.
    """

    maps: tuple[str, ...] = tuple(f"map{i:02d}" for i in range(1, 33))
    episodes: int = 10
    n_frames: int = 48
    every: int = 4
    seed: int = 0
    name: str = "doom"
    licence: str = "BSD-3-Clause"
    origin: str = "Freedoom 2 in ViZDoom"
    category: int = Category.ANNOTATED_VIDEO

    def __post_init__(self):
        if not self.maps or min(self.episodes, self.n_frames, self.every) < 1:
            raise UserError(
                f"maps is {self.maps}, episodes {self.episodes}, n_frames {self.n_frames}, every {self.every}: "
                "each must be at least 1"
            )

    def keys(self) -> list[str]:
        """`map/episode`; see `Source`."""
        return sorted(f"{name}/{i:03d}" for name in self.maps for i in range(self.episodes))

    def load(self, key: str) -> PictureItem:
        """One walk; see `Source`."""
        rng = np.random.default_rng([self.seed, hash64(key) >> 32])
        item: PictureItem = {"frame": [], "depth": [], "segmentation": []}
        with _game(key.partition("/")[0], int(rng.integers(2**31))) as game:
            for _ in range(self.n_frames):
                state = game.get_state()
                if state is None:
                    raise BadItem(key, f"ends after {len(item['frame'])} frames")
                item["frame"].append(np.array(state.screen_buffer))
                item["depth"].append(_grey(state.depth_buffer))
                item["segmentation"].append(maps.ids_to_rgb(maps.cycled(_instances(state))))
                game.make_action(_steer(state.depth_buffer, rng), self.every)
        return item


# Starting a game forks, and gRPC, which Beam loads, aborts if two threads fork at once.
_starting = threading.Lock()
_idle: list[Any] = []  # games between two walks: starting one takes longer than walking


@contextlib.contextmanager
def _game(name: str, seed: int) -> Iterator[Any]:
    """A game at the start of a map; the maps it played before make no difference."""
    try:
        game = _idle.pop()
    except IndexError:
        with _starting:
            game = _start()
    game.set_doom_map(name)
    game.set_seed(seed)
    game.new_episode()
    game.send_game_command("god")  # the agent cannot die, which would end the clip
    try:
        yield game
    finally:
        _idle.append(game)


def _start() -> Any:
    """A running game. Its settings go to a temporary folder; it leaves an empty `_vizdoom` where it ran."""
    try:
        import vizdoom  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise UserError("vizdoom is not installed: pip install vizdoom") from error
    game = vizdoom.DoomGame()
    game.set_doom_game_path(f"{vizdoom.__path__[0]}/freedoom2.wad")
    game.set_screen_format(vizdoom.ScreenFormat.RGB24)
    game.set_screen_resolution(vizdoom.ScreenResolution.RES_320X240)
    game.set_depth_buffer_enabled(True)
    game.set_labels_buffer_enabled(True)
    game.set_window_visible(False)
    for part in ("hud", "messages", "weapon", "crosshair", "screen_flashes"):
        getattr(game, f"set_render_{part}")(False)
    button = vizdoom.Button
    game.set_available_buttons([button.MOVE_FORWARD, button.TURN_LEFT_RIGHT_DELTA, button.USE])
    game.set_episode_timeout(0)
    game.set_doom_skill(1)
    folder = tempfile.mkdtemp()
    game.set_doom_config_path(f"{folder}/vizdoom.ini")
    game.init()
    atexit.register(shutil.rmtree, folder)
    atexit.register(game.close)
    return game


def _grey(depth_HW: np.ndarray) -> Picture:
    return maps.level_to_rgb(1 - np.sqrt(to_float(depth_HW)))


def _instances(state: Any) -> np.ndarray:
    """Ids of the visible things; 0 where there is none."""
    ids = np.zeros(state.labels_buffer.shape, np.int32)
    for label in state.labels:
        # + 1 keeps 0 for the background.
        ids[state.labels_buffer == label.value] = label.object_id + 1
    return ids


def _steer(depth_HW: np.ndarray, rng: np.random.Generator) -> list[float]:
    """The three buttons: forward, degrees to the right, open a door."""
    height, width = depth_HW.shape
    # The nearest point of each column, at eye level: the floor below is always near.
    ahead_W = depth_HW[height // 3 : 2 * height // 3].min(0).astype(np.float32)
    left, right = ahead_W[: width // 2].mean(), ahead_W[width // 2 :].mean()
    blocked = ahead_W[width // 3 : 2 * width // 3].mean() < 12
    turn = 4.0 * np.sign(right - left) + rng.normal(0, 2)
    return [0.0 if blocked else 1.0, 9.0 if blocked else float(turn), float(blocked)]

"""Folders of video files, decoded by PyAV.

What a file may hold, and what is done with it:

| in the file | here |
|---|---|
| several video streams | the first is read that is no attached picture or thumbnail |
| display matrix (rotation, mirror) | the eight of quarter turns and mirrors are applied; any other is a bad item |
| alpha | composited on white; the second stream in which WebM keeps it is not decoded: its frames are opaque |
| variable frame rate, missing times | frames are counted, not timed |
| an edit list that starts late | frames that players do not show are left out |
| pixels that are not square | as stored, not stretched |
| sound, subtitles, chapters | not looked at |
| no video stream, a larger frame than an image may have, references to other files | a bad item |
"""

import dataclasses

from etils import epath

from data_pipelines.items import Picture, PictureItem
from data_pipelines.sources.base import BadItem
from data_pipelines.sources.shown_frames import to_rgb
from data_pipelines.sources.video_frames import BadVideo, every_nth
from lvm_jax.data.sentences.visual_sentence import Category
from lvm_jax.errors import UserError
from lvm_jax.pictures.listing import list_files

EXTENSIONS = (".mp4", ".webm", ".avi", ".gif", ".mpg", ".mpeg", ".mov", ".mkv", ".m4v")


@dataclasses.dataclass(frozen=True)
class VideoFolder:
    """Every video below `root`, also in sub-folders: `{"frame": [x0, x1, ...]}`. Keys are relative paths.

    Attributes:
      max_frames: decoding stops after this many kept frames.
      every: keeps every n-th frame; the decoder seeks past the others.
      short_side: larger frames are shrunk to this short side, aspect ratio kept.
    """

    root: str
    max_frames: int = 256
    every: int = 1
    short_side: int = 256
    name: str = "videos"
    licence: str = "unknown"
    origin: str = ""
    category: int = Category.UNLABELLED_VIDEO

    def __post_init__(self):
        for field in ("max_frames", "every", "short_side"):
            if getattr(self, field) < 1:
                raise UserError(f"{field} is {getattr(self, field)}: it must be at least 1")

    def keys(self) -> list[str]:
        """Relative paths of the videos; see `Source`."""
        return list_files(self.root, EXTENSIONS, "videos")

    def load(self, key: str) -> PictureItem:
        """The first video stream; a file damaged before the last wanted frame is a bad item. See `Source`."""
        frames: list[Picture] = []
        try:
            content = (epath.Path(self.root) / key).read_bytes()
            for frame in every_nth(content, self.every, self.max_frames):
                frames.append(to_rgb(frame, self.short_side))
        except BadVideo as error:
            raise BadItem(key, str(error)) from error
        except Exception as error:  # FFmpeg's errors, PyAV's and NumPy's share no base
            raise BadItem(key, f"cannot be decoded after {len(frames)} frames ({error})") from error
        if not frames:
            raise BadItem(key, "holds no frame")
        return {"frame": frames}

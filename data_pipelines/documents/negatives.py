"""Natural images with a fixed short answer: what has no text must not be read aloud."""

import dataclasses

from etils import epath

from data_pipelines.documents import sides
from data_pipelines.items import Item, Text
from data_pipelines.sources.images import check_short_side, read_image
from lvm_jax.data.sentences.visual_sentence import Category
from lvm_jax.errors import UserError
from lvm_jax.pictures.decode import EXTENSIONS
from lvm_jax.pictures.listing import list_files

# The paper draws from five such sentences (arXiv 2312.06109, section 3.2.2); these are our own words.
ANSWERS = (
    "A photograph without text.",
    "This is a picture and not a page.",
    "There is nothing to read here.",
    "A natural image, no page and no chart.",
    "The picture shows a scene and no words.",
)


@dataclasses.dataclass(frozen=True)
class Negatives:
    """Every image below `root` with one of a few answers: `{"image": [x], "text": [Text]}`. Keys are relative paths.

    Attributes:
      root: the folder.
      answers: one is drawn for each image.
      short_side: larger images are shrunk to this short side; None keeps their size.
      seed: of the draws.
    """

    root: str
    answers: tuple[str, ...] = ANSWERS
    short_side: int | None = None
    seed: int = 0
    name: str = "negatives"
    licence: str = "unknown"
    origin: str = ""
    category: int = Category.ANNOTATED_IMAGE

    def __post_init__(self) -> None:
        check_short_side(self.short_side)
        if not self.answers:
            raise UserError("answers is empty: name at least one")

    def keys(self) -> list[str]:
        """Relative paths of the images; see `Source`."""
        return list_files(self.root, EXTENSIONS, "images")

    def load(self, key: str) -> Item:
        """One image; see `Source`."""
        rng = sides.item_rng(self.seed, self.name, key)
        answer = self.answers[int(rng.integers(len(self.answers)))]
        image = read_image(epath.Path(self.root) / key, key, self.short_side)
        return {"image": [image], "text": [Text(answer)]}

"""Which classes there are, what they are called, and which are kept from training.

LVIS and Visual Genome name classes by synsets of WordNet. The file `coco_to_synset.json` of LVIS says which of them are
COCO's 80; with it, a class has one name in all three sets, and every other class is one that training has not seen.
"""

import dataclasses
import json
from typing import Literal

from etils import epath

from data_pipelines.annotators.base import once_per_process
from lvm_jax.errors import UserError

# "known": the classes of the table, or of the json without one. "others": the rest, never trained on, without those
# that are called as a known one: the same things under another synset, or another sense of the word.
Classes = Literal["known", "others"]


@dataclasses.dataclass(frozen=True)
class ClassNames:
    """How a source names classes.

    Attributes:
      of_synset: synset -> name.
      unseen: names that training must not see.
      classes: which ones the source gives.
    """

    of_synset: dict[str, str]
    unseen: frozenset[str]
    classes: Classes

    def name(self, synset: str, fallback: str) -> str:
        """The name of a class, "" if the source does not give it.

        Args:
          synset: of WordNet, such as "apple.n.01"; "" for a json that has none.
          fallback: the name where no table knows the synset.
        """
        known = self.of_synset.get(synset)
        if self.classes == "known":
            return (known or "") if self.of_synset else plain(fallback)
        other = plain(fallback)
        return "" if known is not None or other in self.of_synset.values() else other

    def is_unseen(self, name: str) -> bool:
        """Whether training must not see it."""
        return self.classes == "others" or name in self.unseen


def class_names(
    root: epath.PathLike,
    synsets: str,
    aliases: tuple[str, ...],
    unseen: tuple[str, ...],
    classes: Classes,
) -> ClassNames:
    """Reads the table.

    Args:
      root: of the data set.
      synsets: `coco_to_synset.json`, below `root`; "" for sets that have COCO's own names.
      aliases: further "synset=name", such as "man.n.01=person".
      unseen: names that training must not see.
      classes: which ones to give.

    Raises:
      UserError: no such file, or one of another format; an alias of a name that the table lacks; `others` without a
        table.
    """
    if classes not in ("known", "others"):
        raise UserError(f"classes is {classes!r}: it must be known or others")
    table = dict(_read_table(str(epath.Path(root) / synsets))) if synsets else {}
    if not table and classes == "others":
        raise UserError("classes is 'others' and no table says which are known: set synsets")
    for alias in aliases:
        synset, _, name = alias.partition("=")
        if name not in table.values():
            raise UserError(
                f"aliases has {alias!r}: write synset=name, such as man.n.01=person, with a name of the table synsets="
                f"{synsets!r}"
            )
        table[synset] = name
    return ClassNames(table, frozenset(unseen), classes)


def plain(name: str) -> str:
    """A class's name as words: "dining_table" is "dining table", "chair.n.01" is "chair"."""
    return name.partition(".n.")[0].replace("_", " ").strip()


@once_per_process
def _read_table(path: str) -> tuple[tuple[str, str], ...]:
    try:
        content = json.loads(epath.Path(path).read_bytes())
        return tuple((entry["synset"], name) for name, entry in content.items())
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(
            f"{path} is no table of synsets ({error}): give coco_to_synset.json of LVIS"
        ) from error

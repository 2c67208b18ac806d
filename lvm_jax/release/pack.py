"""Packs the models of a finished run: rounds the weights, measures what rounding costs, and writes the folder."""

import shutil
from pathlib import Path
from typing import Protocol

from etils import epath

from lvm_jax import files
from lvm_jax.data.records.manifest import Manifest
from lvm_jax.errors import UserError
from lvm_jax.release import folder as release_folder
from lvm_jax.release.card import CardParts, model_card
from lvm_jax.release.cost import Change
from lvm_jax.reporting.trainings import RELEASED

LICENCES = "LICENSES.md"
# What a source's licence says where each of its files has its own.
_A_LICENCE_A_FILE = "a licence a file"


class Run(Protocol):
    """A run of some system that has been trained and evaluated.

    Attributes:
      system: a folder of `lvm_jax.release.folder`.
      manifest: of its held-out data.
      trainings: folder of weights in the release -> the trainings that led to it, in words.
      licences: places where it may keep the list of its data's licences.
    """

    system: str
    manifest: Manifest
    trainings: dict[str, list[str]]
    licences: list[Path]

    def save(self, folder: Path) -> None:
        """Writes the models as they are to be stored, and what one may ask them."""
        ...

    def cost(self, folder: Path) -> list[Change]:
        """Measures the models of `save` beside those of the run."""
        ...

    def card(self) -> CardParts:
        """What the card says of it."""
        ...


def pack(
    run: Run, output: str | Path, *, name: str, licences: str | Path | None = None
) -> list[Change]:
    """Writes the release of a run.

    Args:
      run: see `lvm_jax.release.systems.open_run`.
      output: a folder that does not exist yet.
      name: of the release, for its card.
      licences: the list of the data's licences; by default the run's own, if there is one.

    Returns:
      what the stored types cost.

    Raises:
      UserError: the output exists, a type cannot hold the weights, a list of licences is missing, or the release is
        larger than 60 MB.
    """
    target = Path(output)
    if target.exists():
        raise UserError(f"{target} exists: remove it, or name another --output")
    listed = _licences(run, licences)
    # Written beside the target and renamed at the end, so that an interrupted run leaves no half release.
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    run.save(partial)
    costs = run.cost(partial)
    run.manifest.save(partial)
    if listed is not None:
        shutil.copyfile(listed, partial / LICENCES)
    # So that what is trained on from here can tell them too.
    files.write_json(epath.Path(partial / RELEASED), run.trainings)
    (partial / "MODEL_CARD.md").write_text(model_card(name, run.card(), costs))
    release_folder.write_checksums(partial)
    partial.rename(target)
    return costs


def _licences(run: Run, given: str | Path | None) -> Path | None:
    places = run.licences if given is None else [Path(given)]
    found = next((path for path in places if path.is_file()), None)
    if found is not None:
        return found
    if given is not None:
        raise UserError(f"--licences={given} is no file: name the list of the data's licences")
    for source, info in run.manifest.sources.items():
        if _A_LICENCE_A_FILE in info["licence"]:
            raise UserError(
                f"the source {source} has {info['licence']!r}, and {' or '.join(map(str, places))} does not exist: "
                "name the list with --licences"
            )
    return None

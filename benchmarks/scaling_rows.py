"""The rows of benchmarks/scaling_table.py: which model, on which chips, how it lies on the mesh."""

import dataclasses
import math
import re


@dataclasses.dataclass(frozen=True)
class Row:
    """A training step on a slice.

    Attributes:
      model: the argument of the configuration file.
      topology: as compile_only.py takes it.
      data: the mesh's axis `data`; `fsdp` is the rest.
      rows_per_chip: of the batch.
      remat: what the backward pass recomputes.
      published: the mesh and the remat are those of LVM's published code, (hosts of 4 chips, the rest, 1) and "full".
      slices: TPU slices of that topology.
      system: the configuration file's name.
      expert: the axis of the mesh that splits experts.
    """

    model: str
    topology: str
    data: int
    rows_per_chip: int
    remat: str = "dots"
    published: bool = False
    slices: int = 1
    system: str = "lvm"
    expert: int = 1

    @property
    def label(self) -> str:
        """The model, as the table shows it."""
        return f"{self.model}{' (published)' if self.published else ''}"

    @property
    def chips(self) -> int:
        """Chips of all slices."""
        shape = re.findall(r"\d+", self.topology.split(":")[1])
        return self.slices * math.prod(map(int, shape))

    @property
    def where(self) -> str:
        """The slices, as the table shows them."""
        return f"{self.slices} x {self.topology}" if self.slices > 1 else self.topology

    @property
    def name(self) -> str:
        """Name of the row's file."""
        system = "" if self.system == "lvm" else f"{self.system}-"
        parts = system + self.model, self.where, *(["published"] if self.published else [])
        return "-".join(re.sub(r"\W+", "-", part) for part in parts)

    def flags(self) -> list[str]:
        """Flags of compile_only.py."""
        return [
            f"--config=experiments/configs/{self.system}.py:{self.model}",
            f"--topology={self.topology}",
            f"--num_slices={self.slices}",
            f"--config.mesh.data={self.data}",
            f"--config.mesh.expert={self.expert}",
            f"--config.train.batch_size={self.rows_per_chip * self.chips}",
            *(
                f"--config.{path}.{key}={value}"
                for path, settings in self._computation().items()
                for key, value in settings.items()
            ),
        ]

    def _computation(self) -> dict[str, dict[str, str]]:
        """Path below config of each network -> how it is computed."""
        gpu = self.topology.startswith("h")
        kernel = {"attention": "cudnn" if gpu else "splash"}
        remat = {"remat": self.remat}
        if self.system == "lvm":
            return {"model": kernel | remat}
        if self.system == "unified":  # which drops weights of attention
            return {"model": {"attention": "xla"} | remat}
        # A grid's bias makes heads of 192, for which JAX wants to see the Hopper GPU.
        grid = {"attention": "chunked" if gpu else "splash"}
        networks = {"model.decoder": kernel | remat, "model.vitdet.tower": grid | remat}
        if self.model.startswith(("base", "toy")):
            networks["model.clip.tower"] = kernel | remat
        return networks


def _vary(model: str, chips: dict[str, int], rows_per_chip: int) -> list[Row]:
    """A model of Vary on each topology; values are `data`."""
    return [Row(model, where, data, rows_per_chip, system="vary") for where, data in chips.items()]


def _unified(model: str, rows_per_chip: dict[str, int]) -> list[Row]:
    """A decoder with its eight experts apart, on each topology."""
    return [
        Row(model, where, 1, rows, system="unified", expert=8)
        for where, rows in rows_per_chip.items()
    ]


LVM = [
    Row("100m", "v5e:16x16", 16, 8),
    Row("300m", "v5e:16x16", 16, 4),
    Row("300m", "v6e:16x16", 16, 4),
    Row("300m", "v5p:4x4x8", 4, 8),
    Row("600m", "v5e:16x16", 16, 2),
    Row("1b", "v5e:16x16", 4, 2),
    Row("3b", "v5e:16x16", 2, 1),
    Row("3b", "v6e:16x16", 2, 2),
    Row("3b", "v5p:4x4x4", 2, 4),
    Row("3b", "v5p:4x4x8", 4, 4),
    Row("3b", "v5p:4x4x4", 4, 4, slices=2),
    Row("3b", "v5p:8x8x8", 16, 4),
    Row("3b", "v5p:4x4x4", 16, 4, "full", published=True),
    Row("3b", "v5p:8x8x8", 128, 4, "full", published=True),
    Row("7b", "v5e:16x16", 2, 1),
    Row("7b", "v6e:16x16", 2, 1),
    Row("7b", "v5p:4x4x8", 2, 4),
    Row("7b", "v5p:8x8x8", 8, 4),
    Row("13b", "v5p:8x8x8", 4, 2),
    Row("20b", "v5p:8x8x8", 4, 2),
    Row("30b", "v5p:8x8x8", 4, 2),
    Row("300m", "h100:1x8", 1, 8),
    Row("1b", "h100:1x8", 1, 4),
    Row("3b", "h100:1x8", 1, 4),
    Row("3b", "h100:8x8", 8, 4),
    Row("7b", "h100:8x8", 8, 2),
    Row("3b", "h200:8x8", 8, 8),
]
# Batches are the published ones, 512 rows for tiny and toy, 256 for base and got-ocr2, 64 for tiny-600k.
# `tiny-plus` is the program of `tiny`, and `stage=sft` that of the first stage; constants differ.
_SLICES = {"v5p:4x4x4": 2, "v6e:8x8": 2, "h200:8x8": 8}
VARY = [
    *_vary("tiny", _SLICES, 8),
    *_vary("tiny-600k", {"v5p:2x2x4": 1, "v6e:4x4": 1, "h200:1x8": 1}, 4),
    *_vary("base", _SLICES, 4),
    *_vary("base-vicuna", _SLICES, 4),
    *_vary("toy", _SLICES, 8),
    *_vary("got-ocr2", _SLICES, 4),
]
# 512 rows, as published.
_CHIPS = {"v5p:4x4x4": 8, "v6e:8x8": 8, "h200:8x8": 8}
UNIFIED = [
    *_unified("published", _CHIPS),
    *_unified("published,experts=token", _CHIPS),
    *_unified("published,bins=0", _CHIPS),
    *_unified("published,experts=token,bins=0", _CHIPS),
]
ROWS = {"lvm": LVM, "vary": VARY, "unified": UNIFIED}

"""Annotations by any ONNX network of the user's: edges, depth, normals, saliency, segmentation.

Shape legend: H, W of a picture or of the network's input or output.
"""

import dataclasses
from typing import Any, Literal

import cv2
import numpy as np
from etils import epath
from jaxtyping import Float, Float32

from data_pipelines.annotators.base import ImageAnnotator, once_per_process
from data_pipelines.items import Picture
from lvm_jax.errors import UserError
from lvm_jax.pictures import annotation_maps as maps
from lvm_jax.pictures.pixels import to_float

Meaning = Literal["grey", "depth", "disparity", "normals", "segmentation"]


@dataclasses.dataclass(frozen=True)
class OnnxModel(ImageAnnotator):
    """Runs a network on each image and draws its output at the image's size.

    The network gets (pixels / 255 - mean) / std of the image squashed to `input_size`. `meaning` says what comes out:
      grey          (H, W) in [0, 1] after `activation`: edges, saliency. Back: level / 255.
      depth         (H, W) in world units, drawn between `near` and `far`. Back: `annotation_maps.rgb_to_depth`.
      disparity     (H, W) of any scale, larger is nearer, stretched to each picture's own range. Back: up to scale.
      normals       (3, H, W), scaled to unit length, times `axes`. Back: `annotation_maps.rgb_to_normals`.
      segmentation  (classes, H, W) scores, or (H, W) ids, in colours of `n_ids`. Back: `annotation_maps.rgb_to_ids`.
    Leading axes of length 1 are dropped. It runs on one thread, so that every machine gives the same bytes.

    Attributes:
      model: path of the .onnx file, local or remote.
      meaning: of the output.
      input_size: (height, width) of the network's input.
      layout: of input and output: channels first or last.
      order: of the input's channels.
      mean, std: one value per channel.
      output: name of the output to use; the first by default.
      activation: applied to the output of `grey`.
      near, far: of `depth`.
      axes: signs that turn the network's axes into x right, y up, z towards the viewer.
      n_ids: colours of `segmentation`.
    """

    model: str
    meaning: Meaning
    input_size: tuple[int, ...]
    layout: Literal["channels_first", "channels_last"] = "channels_first"
    order: Literal["rgb", "bgr"] = "rgb"
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    output: str = ""
    activation: Literal["none", "sigmoid"] = "none"
    near: float = maps.DEPTH_NEAR
    far: float = maps.DEPTH_FAR
    axes: tuple[float, ...] = (1.0, 1.0, 1.0)
    n_ids: int = maps.MAX_IDS

    def __post_init__(self):
        if len(self.input_size) != 2 or min(self.input_size) < 1:
            raise UserError(f"input_size is {self.input_size}: it must be (height, width)")
        for name in ("mean", "std", "axes"):
            if len(getattr(self, name)) != 3:
                raise UserError(f"{name} is {getattr(self, name)}: it must have three numbers")
        if 0 in self.std:
            raise UserError(f"std is {self.std}: pixels are divided by it, so it may not be 0")
        if not self.near < self.far:
            raise UserError(f"near is {self.near} and far {self.far}: near must be smaller")
        maps.palette(self.n_ids)  # refuses a number that is none

    def one(self, image: Picture, rng: np.random.Generator) -> Picture:
        """See `ImageAnnotator`.

        Raises:
          UserError: onnxruntime is not installed, the file is not a network, or its output has the wrong shape.
        """
        value = self._run(image)
        height, width = image.shape[:2]
        if self.meaning == "segmentation":
            ids = value if value.ndim == 2 else value.argmax(0)
            # Nearest: an average of two ids would be a third class.
            ids = cv2.resize(
                ids.astype(np.int32), (width, height), interpolation=cv2.INTER_NEAREST_EXACT
            )
            return maps.ids_to_rgb(ids, self.n_ids)
        value = np.moveaxis(value, 0, -1) if value.ndim == 3 else value
        smooth = cv2.resize(value.astype(np.float32), (width, height))
        return self._draw(smooth)

    def _draw(self, value: Float32[np.ndarray, "H W ..."]) -> Picture:
        match self.meaning:
            case "normals":
                normals = value * np.array(self.axes, np.float32)
                length = np.linalg.norm(normals, axis=-1, keepdims=True)
                return maps.normals_to_rgb(normals / np.maximum(length, 1e-6))
            case "depth":
                return maps.depth_to_rgb(value, self.near, self.far)
            case "disparity":
                low, high = float(value.min()), float(value.max())
                grey = (value - low) / max(high - low, 1e-12)
            case _:
                grey = 1 / (1 + np.exp(-value)) if self.activation == "sigmoid" else value
        return maps.level_to_rgb(grey)

    def _run(self, image: Picture) -> Float[np.ndarray, "..."]:
        """The output as (H, W) or (channels, H, W)."""
        height, width = self.input_size
        resized = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        if self.order == "bgr":
            resized = resized[..., ::-1]
        mean, std = np.array(self.mean, np.float32), np.array(self.std, np.float32)
        x_HWC = (to_float(resized) - mean) / std
        first = self.layout == "channels_first"
        x = np.ascontiguousarray(np.moveaxis(x_HWC, -1, 0) if first else x_HWC)[None]
        session = _session(self.model)
        names = [output.name for output in session.get_outputs()]
        if self.output and self.output not in names:
            raise UserError(
                f"{self.model} has no output {self.output!r}: it has {', '.join(names)}"
            )
        try:
            (value,) = session.run([self.output or names[0]], {session.get_inputs()[0].name: x})
        except Exception as error:  # onnxruntime's errors have no common base
            raise UserError(
                f"{self.model} does not take an input {x.shape}: set input_size and layout ({_first_line(error)})"
            ) from error
        return self._checked(np.asarray(value))

    def _checked(self, value: np.ndarray) -> np.ndarray:
        shape = value.shape
        if self.layout == "channels_last" and value.ndim == 4:
            value = np.moveaxis(value, -1, 1)
        while value.ndim > 2 and value.shape[0] == 1:
            value = value[0]
        fits = {
            "normals": value.ndim == 3 and len(value) == 3,
            "segmentation": value.ndim in (2, 3),
        }.get(self.meaning, value.ndim == 2)
        if not fits:
            raise UserError(
                f"{self.model} gives an output {shape}, which is no {self.meaning}: set output, layout or meaning"
            )
        return value


@once_per_process
def _session(path: str) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError("onnxruntime is not installed: pip install 'lvm_jax[onnx]'") from error
    file = epath.Path(path)
    if not file.is_file():
        raise UserError(f"the ONNX model {path} does not exist: give the path of an .onnx file")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    try:
        return onnxruntime.InferenceSession(
            file.read_bytes(), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # onnxruntime's errors have no common base
        raise UserError(f"{path} is no ONNX model ({_first_line(error)})") from error


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]

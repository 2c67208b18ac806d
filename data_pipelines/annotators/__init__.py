"""Annotations as pictures, computed from photographs and clips; `lvm_jax.pictures` turns them back into numbers."""

from data_pipelines.annotators.base import Annotator, CannotAnnotate
from data_pipelines.annotators.degradations import Blur, LowLight, Noise, Posterise, Rain
from data_pipelines.annotators.motion import OpticalFlow
from data_pipelines.annotators.onnx_model import OnnxModel
from data_pipelines.annotators.photographs import Canny, Grey, Holes

# The names that `kind` of an entry's annotators can take.
ANNOTATORS: dict[str, type] = {
    "canny": Canny,
    "grey": Grey,
    "holes": Holes,
    "noise": Noise,
    "rain": Rain,
    "low_light": LowLight,
    "blur": Blur,
    "posterise": Posterise,
    "optical_flow": OpticalFlow,
    "onnx": OnnxModel,
}

__all__ = [
    "ANNOTATORS",
    "Annotator",
    "Blur",
    "CannotAnnotate",
    "Canny",
    "Grey",
    "Holes",
    "LowLight",
    "Noise",
    "OnnxModel",
    "OpticalFlow",
    "Posterise",
    "Rain",
]

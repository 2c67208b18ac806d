"""Base colours of glTF 2.0: factor times texture times vertex colours, in linear light (section 3.9.2).

| of the specification | here |
|---|---|
| baseColorFactor, baseColorTexture, COLOR_0, no material (white) | multiplied |
| alphaMode OPAQUE, MASK with alphaCutoff, BLEND | as specified |
| texCoord, wrapS, wrapT, KHR_texture_transform, EXT_texture_webp | as specified; filters are always linear |
| KHR_materials_pbrSpecularGlossiness | its diffuse factor and texture |
| doubleSided | both sides are always drawn: meshes often have faces the wrong way round |
| metallic, roughness, normal, occlusion, emission, other KHR_materials | not drawn: the light is the renderer's |
| a texture without a PNG, JPEG or WebP | `BadGltf` |
"""

import io
import math
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image as PILImage

from data_pipelines.mesh_files.gltf_file import BadGltf, GltfFile
from data_pipelines.mesh_files.pieces import Look
from data_pipelines.mesh_files.trimesh_files import shrunk
from data_pipelines.synthetic.mesh_renderer import AlphaMode
from data_pipelines.synthetic.textures import Wrap
from lvm_jax.pictures.decode import MAX_PIXELS

_WRAPS: dict[int, Wrap] = {33071: "clamp", 33648: "mirror", 10497: "repeat"}
_ALPHA: dict[str, AlphaMode] = {"OPAQUE": "opaque", "MASK": "mask", "BLEND": "blend"}
_GLOSS = "KHR_materials_pbrSpecularGlossiness"


class Materials:
    """The materials of a file; each texture is decoded once."""

    def __init__(self, file: GltfFile):
        self._file = file
        self._textures: dict[tuple[int, bool], np.ndarray] = {}

    def look(self, primitive: dict[str, Any], vertices: int) -> Look:
        """The look of a primitive of so many vertices.

        Raises:
          BadGltf: a reference leads nowhere, or a texture cannot be decoded.
        """
        file = self._file
        material = file.get("materials", primitive["material"]) if "material" in primitive else {}
        gloss = material.get("extensions", {}).get(_GLOSS)
        if gloss is None:
            pbr = material.get("pbrMetallicRoughness", {})
            factor, info = pbr.get("baseColorFactor"), pbr.get("baseColorTexture")
        else:
            factor, info = gloss.get("diffuseFactor"), gloss.get("diffuseTexture")
        mode = material.get("alphaMode", "OPAQUE")
        if mode not in _ALPHA:
            raise BadGltf(f"has the alphaMode {mode!r}: it must be one of {', '.join(_ALPHA)}")
        colours_V4 = np.ones((vertices, 4)) * (1.0 if factor is None else np.reshape(factor, 4))
        attributes = primitive["attributes"]
        if "COLOR_0" in attributes:
            tint_VC = _of_vertices(file, attributes["COLOR_0"], vertices)
            colours_V4[:, : tint_VC.shape[1]] *= tint_VC
        texture = uv_V2 = None
        wrap: tuple[Wrap, Wrap] = ("repeat", "repeat")
        if info is not None:
            texture, wrap = self._texture(info["index"], alpha=mode != "OPAQUE")
            uv_V2 = _places(file, info, attributes, vertices)
        return Look(
            colours_V4,
            texture=texture,
            uv_V2=uv_V2,
            wrap=wrap,
            linear=True,
            alpha=_ALPHA[mode],
            cutoff=float(material.get("alphaCutoff", 0.5)),
        )

    def _texture(self, index: int, alpha: bool) -> tuple[np.ndarray, tuple[Wrap, Wrap]]:
        """A texture, with its alpha if asked for, and its wrapping."""
        file = self._file
        texture = file.get("textures", index)
        extensions = texture.get("extensions", {})
        source = extensions.get("EXT_texture_webp", {}).get("source", texture.get("source"))
        if source is None:
            raise BadGltf(
                f"texture {index} has no PNG, JPEG or WebP ({', '.join(extensions) or 'no source'})"
            )
        if (source, alpha) not in self._textures:
            self._textures[source, alpha] = _pixels(file, source, alpha)
        sampler = file.get("samplers", texture["sampler"]) if "sampler" in texture else {}
        wrap = _WRAPS[sampler.get("wrapS", 10497)], _WRAPS[sampler.get("wrapT", 10497)]
        return self._textures[source, alpha], wrap


def _of_vertices(file: GltfFile, index: int, vertices: int) -> np.ndarray:
    values_VC = file.numbers(index)
    if len(values_VC) != vertices:
        raise BadGltf(f"has {len(values_VC)} values of an attribute for {vertices} vertices")
    return values_VC


def _places(
    file: GltfFile, info: dict[str, Any], attributes: dict[str, int], vertices: int
) -> Float[np.ndarray, "V 2"]:
    """Texture coordinates from the lower left, transformed."""
    move = info.get("extensions", {}).get("KHR_texture_transform", {})
    name = f"TEXCOORD_{move.get('texCoord', info.get('texCoord', 0))}"
    if name not in attributes:
        raise BadGltf(f"has a texture without {name}")
    u, v = (_of_vertices(file, attributes[name], vertices) * move.get("scale", (1, 1))).T
    # Counter-clockwise as one looks at the picture, whose v points down. The extension's GLSL turns the other way; its
    # words, its sample model and the viewers agree on this one (KhronosGroup/glTF, issue 1563).
    c, s = math.cos(move.get("rotation", 0)), math.sin(move.get("rotation", 0))
    right, down = move.get("offset", (0, 0))
    return np.stack([c * u + s * v + right, 1 - (c * v - s * u + down)], -1)


def _pixels(file: GltfFile, source: int, alpha: bool) -> UInt8[np.ndarray, "H W C"]:
    image = file.get("images", source)
    content = (
        file.view(image["bufferView"])[0] if "bufferView" in image else file.load(image["uri"])
    )
    try:
        with PILImage.open(io.BytesIO(content), formats=("PNG", "JPEG", "WEBP")) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise BadGltf(f"image {source} has more than {MAX_PIXELS} pixels")
            # OPAQUE ignores alpha: colours under transparent pixels count.
            pixels = picture.convert("RGBA")
    except BadGltf:
        raise
    except Exception as error:  # decoders share no base error
        raise BadGltf(f"image {source} cannot be decoded ({error})") from error
    return shrunk(pixels if alpha else pixels.convert("RGB"))

"""glTF 2.0: what its specification says of base colour, geometry and places, seen in the pictures."""

import base64
import io
import json
import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from data_pipelines.sources import BadItem, MeshFolder
from data_pipelines.synthetic.textures import to_linear, to_srgb

BACKGROUND = 237
LIGHT = 0.58 + 0.42 * 0.52  # on a wall that faces the camera
SQUARE = [(-1, -1, 0), (1, -1, 0), (1, 1, 0), (-1, 1, 0)]
UV = [(0, 1), (1, 1), (1, 0), (0, 0)]  # the whole picture, upright
KINDS = {np.dtype("u1"): 5121, np.dtype("u2"): 5123, np.dtype("u4"): 5125, np.dtype("f4"): 5126}
KINDS |= {np.dtype("i1"): 5120, np.dtype("i2"): 5122}


def png(pixels, mode=None) -> str:
    target = io.BytesIO()
    Image.fromarray(np.asarray(pixels, np.uint8), mode).save(target, "PNG")
    return "data:image/png;base64," + base64.b64encode(target.getvalue()).decode()


class File:
    """A glTF of one square that faces the camera, to be changed before it is written."""

    def __init__(self, material=None, picture=None, **attributes):
        self.data = b""
        self.tree = {
            "asset": {"version": "2.0"},
            "scene": 0,
            "scenes": [{"nodes": [0]}],
            "nodes": [{"mesh": 0}],
            "meshes": [{"primitives": [{"attributes": {}}]}],
            "accessors": [],
            "bufferViews": [],
        }
        self.primitive = self.tree["meshes"][0]["primitives"][0]
        self.primitive["indices"] = self.add([0, 1, 2, 0, 2, 3], "u2")
        self.put(**({"POSITION": (SQUARE, "f4"), "TEXCOORD_0": (UV, "f4")} | attributes))
        if material is not None:
            self.tree["materials"] = [material]
            self.primitive["material"] = 0
        if picture is not None:
            self.tree["images"] = [{"uri": picture}]
            self.tree["textures"] = [{"source": 0}]

    def put(self, **attributes):
        for name, (values, dtype, *flags) in attributes.items():
            self.primitive["attributes"][name] = self.add(values, dtype, *flags)

    def view(self, content: bytes, **fields) -> int:
        self.tree["bufferViews"].append(
            {"buffer": 0, "byteOffset": len(self.data), "byteLength": len(content), **fields}
        )
        self.data += content + bytes(-len(content) % 4)
        return len(self.tree["bufferViews"]) - 1

    def add(self, values, dtype, *flags) -> int:
        array = np.asarray(values, dtype)
        kinds = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4", 16: "MAT4"}
        columns = array.shape[1] if array.ndim == 2 else 1
        self.tree["accessors"].append(
            {
                "bufferView": self.view(array.tobytes()),
                "componentType": KINDS[array.dtype],
                "count": len(array),
                "type": kinds[columns],
                **dict.fromkeys(flags, True),
            }
        )
        return len(self.tree["accessors"]) - 1

    def json(self) -> bytes:
        uri = "data:application/octet-stream;base64," + base64.b64encode(self.data).decode()
        buffers = [{"byteLength": len(self.data), "uri": uri}]
        return json.dumps({**self.tree, "buffers": buffers}).encode()

    def glb(self) -> bytes:
        text = json.dumps({**self.tree, "buffers": [{"byteLength": len(self.data)}]}).encode()
        text += b" " * (-len(text) % 4)
        body = struct.pack("<I4s", len(text), b"JSON") + text
        body += struct.pack("<I4s", len(self.data), b"BIN\0") + self.data
        return struct.pack("<4sII", b"glTF", 2, 12 + len(body)) + body

    def show(self, tmp_path, turn=0, **options) -> np.ndarray:
        """The view from the front, or after so many of four turns."""
        (tmp_path / "a.gltf").write_bytes(self.json())
        options = {"size": 32, "radius": (2.0, 2.0), "elevation": (0.0, 0.0), **options}
        return MeshFolder(str(tmp_path), n_views=4, **options).load("a.gltf")["view"][turn]


def colour(view, row=16, column=16) -> np.ndarray:
    """sRGB in [0, 1] without the light."""
    return view[row, column] / 255 / LIGHT


def painted(factor=None, texture=True, **fields):
    pbr = {} if factor is None else {"baseColorFactor": factor}
    if texture:
        pbr["baseColorTexture"] = {"index": 0, **({} if texture is True else texture)}
    return {"pbrMetallicRoughness": pbr, **fields}


WHITE = png(np.full((4, 4, 3), 255))
GREY = png(np.full((4, 4, 3), 128))


@pytest.mark.parametrize("form", ["json", "glb"])
def test_both_containers_are_read(form, tmp_path):
    (tmp_path / "a.GLB").write_bytes(getattr(File(painted((1, 0, 0, 1)), WHITE), form)())
    view = MeshFolder(str(tmp_path), n_views=1, elevation=(0.0, 0.0)).load("a.GLB")["view"][0]
    np.testing.assert_allclose(view[128, 128] / 255 / LIGHT, (1, 0, 0), atol=0.01)


def test_base_colour_is_factor_times_texture_times_vertex_colour_in_linear_light(tmp_path):
    np.testing.assert_allclose(colour(File().show(tmp_path)), 1, atol=0.01)  # default material
    red = File(painted((1, 0, 0, 1)), WHITE).show(tmp_path)
    np.testing.assert_allclose(colour(red), (1, 0, 0), atol=0.01)
    grey = to_linear(np.array(128 / 255))
    tints = [((0.5, 0.25, 1.0),) * 4, "f4"], [((128, 64, 255, 255),) * 4, "u1", "normalized"]
    tints = *tints, [((32768, 16384, 65535),) * 4, "u2", "normalized"]
    for tint in tints:
        view = File(painted((0.5, 1, 0.8, 1)), GREY, COLOR_0=tint).show(tmp_path)
        expected = to_srgb(np.array((0.5, 1, 0.8)) * grey * (0.5, 0.25, 1.0))
        np.testing.assert_allclose(colour(view), expected, atol=0.015)
        bare = File(painted((0.5, 1, 0.8, 1), texture=False), COLOR_0=tint).show(tmp_path)
        expected = to_srgb(np.array((0.5, 1, 0.8)) * (0.5, 0.25, 1.0))
        np.testing.assert_allclose(colour(bare), expected, atol=0.015)
        plain = File(COLOR_0=tint).show(tmp_path)
        np.testing.assert_allclose(colour(plain), to_srgb(np.array((0.5, 0.25, 1.0))), atol=0.015)


def half_clear(alpha=0):
    pixels = np.full((16, 16, 4), 255)
    pixels[:, :8] = (255, 0, 0, alpha)  # the left half
    return png(pixels)


def test_alpha_modes(tmp_path):
    opaque = File(painted(), half_clear()).show(tmp_path)
    np.testing.assert_allclose(colour(opaque, column=10), (1, 0, 0), atol=0.01)
    mask = File(painted(alphaMode="MASK"), half_clear()).show(tmp_path)
    assert (mask[16, 10] == BACKGROUND).all()
    np.testing.assert_allclose(colour(mask, column=20), 1, atol=0.01)
    for cutoff, there in ((0.2, True), (0.3, False)):  # alpha is 0.5 x 0.5
        view = File(
            painted((1, 1, 1, 0.5), alphaMode="MASK", alphaCutoff=cutoff), half_clear(128)
        ).show(tmp_path)
        assert (view[16, 10] != BACKGROUND).any() == there
    blend = File(painted((1, 1, 1, 0.5), alphaMode="BLEND"), half_clear()).show(tmp_path)
    assert (blend[16, 10] == BACKGROUND).all()
    np.testing.assert_allclose(blend[16, 20], (255 * LIGHT + BACKGROUND) / 2, atol=1.5)
    tint = ((0, 0, 1, 0.25),) * 4, "f4"
    tinted = File(painted(texture=False, alphaMode="BLEND"), COLOR_0=tint).show(tmp_path)
    expected = 0.25 * np.array((0, 0, 255 * LIGHT)) + 0.75 * BACKGROUND
    np.testing.assert_allclose(tinted[16, 16], expected, atol=1.5)


def test_layers_are_blended_from_the_back_to_the_front_whatever_their_order(tmp_path):
    views = []
    for order in (1, -1):
        file = File(painted((1, 0, 0, 0.5), texture=False, alphaMode="BLEND"))
        file.tree["materials"] += [
            painted((0, 1, 0, 0.5), texture=False, alphaMode="BLEND"),
            painted((0, 0, 1, 1), texture=False),
        ]
        layers = []
        for material, z in ((0, 0.2), (1, 0.1), (2, 0.0)):  # red in front
            place = file.add([(x, y, z) for x, y, _ in SQUARE], "f4")
            layers.append(
                {**file.primitive, "attributes": {"POSITION": place}, "material": material}
            )
        file.tree["meshes"][0]["primitives"] = layers[::order]
        views.append(file.show(tmp_path))
    np.testing.assert_array_equal(*views)
    np.testing.assert_allclose(colour(views[0]), (0.5, 0.25, 0.25), atol=0.01)


def test_what_is_wholly_transparent_is_a_bad_item_and_no_empty_picture(tmp_path):
    with pytest.raises(BadItem, match=r"a.gltf: shows nothing"):
        File(painted((1, 1, 1, 0), texture=False, alphaMode="BLEND")).show(tmp_path)


def quarters():
    """Red, green above; blue, black below."""
    pixels = np.zeros((64, 64, 3))
    pixels[:32, :32, 0] = pixels[:32, 32:, 1] = pixels[32:, :32, 2] = 255
    return png(pixels)


RED, GREEN, BLUE, BLACK = (1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 0, 0)
CORNERS = [(11, 11), (11, 21), (21, 11), (21, 21)]


def corners(view):
    return [tuple(np.round(colour(view, *place)).astype(int)) for place in CORNERS]


@pytest.mark.parametrize(
    ("move", "expected"),
    [
        ({}, [RED, GREEN, BLUE, BLACK]),
        ({"offset": [0.5, 0]}, [GREEN, RED, BLACK, BLUE]),
        ({"offset": [0, 0.5]}, [BLUE, BLACK, RED, GREEN]),
        ({"scale": [0.5, 0.5]}, [RED, RED, RED, RED]),
        ({"scale": [0.5, 0.5], "offset": [0.5, 0]}, [GREEN, GREEN, GREEN, GREEN]),
        # Texture coordinates go counter-clockwise about the upper left corner, so the picture goes clockwise.
        ({"rotation": np.pi / 2}, [BLUE, RED, BLACK, GREEN]),
    ],
)
def test_texture_transforms(move, expected, tmp_path):
    texture = {"extensions": {"KHR_texture_transform": move}} if move else {}
    file = File(painted(texture={"index": 0, **texture}), quarters())
    file.tree["extensionsRequired"] = ["KHR_texture_transform"] if move else []
    assert corners(file.show(tmp_path)) == expected


@pytest.mark.parametrize(
    ("wrap", "expected"),
    [
        (10497, [RED, RED, BLUE, BLUE]),
        (33648, [RED, GREEN, BLUE, BLACK]),
        (33071, [RED, GREEN, BLUE, BLACK]),
    ],
)
def test_wrapping(wrap, expected, tmp_path):
    # u from 0.1 to 1.4: what lies right of 1 repeats the left, or its mirror image, or the right edge.
    uv = [(0.1, 1), (1.4, 1), (1.4, 0), (0.1, 0)]
    file = File(painted(), quarters(), TEXCOORD_0=(uv, "f4"))
    file.tree["samplers"] = [{"wrapS": wrap, "wrapT": wrap}]
    file.tree["textures"][0]["sampler"] = 0
    view = file.show(tmp_path, size=64)
    places = [(22, 17), (22, 47), (42, 17), (42, 47)]
    assert [tuple(np.round(colour(view, *p)).astype(int)) for p in places] == expected


def test_other_texture_coordinates_quantised_ones_and_webp(tmp_path):
    moved = [(u * 0.5, v * 0.5) for u, v in UV]
    file = File(painted(texture={"texCoord": 1}), quarters(), TEXCOORD_1=(moved, "f4"))
    assert corners(file.show(tmp_path)) == [RED] * 4
    small = np.array(UV) * 65535
    file = File(painted(), quarters(), TEXCOORD_0=(small, "u2", "normalized"))
    assert corners(file.show(tmp_path)) == [RED, GREEN, BLUE, BLACK]
    target = io.BytesIO()
    Image.new("RGB", (4, 4), (0, 255, 0)).save(target, "WEBP", lossless=True)
    file.tree["images"].append(
        {"bufferView": file.view(target.getvalue()), "mimeType": "image/webp"}
    )
    file.tree["textures"] = [{"source": 0, "extensions": {"EXT_texture_webp": {"source": 1}}}]
    assert corners(file.show(tmp_path)) == [GREEN] * 4


def test_specular_glossiness_has_its_own_base_colour(tmp_path):
    gloss = {"diffuseFactor": [1, 0, 0, 1], "diffuseTexture": {"index": 0}}
    material = {"extensions": {"KHR_materials_pbrSpecularGlossiness": gloss}}
    np.testing.assert_allclose(colour(File(material, WHITE).show(tmp_path)), (1, 0, 0), atol=0.01)


@pytest.mark.parametrize(
    "name", ["KHR_draco_mesh_compression", "EXT_meshopt_compression", "KHR_texture_basisu", "X_y"]
)
def test_required_extensions_that_are_missing_are_named(name, tmp_path):
    file = File()
    file.tree["extensionsRequired"] = [name]
    with pytest.raises(BadItem, match=rf"a.gltf: cannot be read \(requires the extension {name}:"):
        file.show(tmp_path)


def test_a_fallback_beside_an_optional_extension_is_read_and_none_is_named(tmp_path):
    plain = File().show(tmp_path)
    file = File()
    file.tree["extensionsUsed"] = ["KHR_draco_mesh_compression"]
    file.primitive["extensions"] = {"KHR_draco_mesh_compression": {"bufferView": 0}}
    np.testing.assert_array_equal(file.show(tmp_path), plain)
    del file.tree["accessors"][file.primitive["attributes"]["POSITION"]]["bufferView"]
    with pytest.raises(BadItem, match="has vertices only in the extension KHR_draco_mesh_comp"):
        file.show(tmp_path)
    file = File(painted(), WHITE)
    file.tree["textures"] = [{"extensions": {"KHR_texture_basisu": {"source": 0}}}]
    with pytest.raises(BadItem, match=r"texture 0 has no PNG, JPEG or WebP \(KHR_texture_basisu\)"):
        file.show(tmp_path)


def test_strips_fans_plain_lists_and_sparse_and_strided_arrays_give_the_same_square(tmp_path):
    plain = File().show(tmp_path)
    strip, fan, none, spread, sparse = File(), File(), File(), File(), File()
    strip.primitive |= {"mode": 5, "indices": strip.add([0, 1, 3, 2], "u1")}
    fan.primitive |= {"mode": 6, "indices": fan.add([0, 1, 2, 3], "u4")}
    del none.primitive["indices"]
    none.put(
        POSITION=([SQUARE[i] for i in (0, 1, 2, 0, 2, 3)], "f4"),
        TEXCOORD_0=([UV[i] for i in (0, 1, 2, 0, 2, 3)], "f4"),
    )
    wide = np.pad(np.array(SQUARE, "f4"), ((0, 0), (0, 2)), constant_values=9)
    accessor = spread.tree["accessors"][spread.primitive["attributes"]["POSITION"]]
    accessor["bufferView"] = spread.view(wide.tobytes(), byteStride=20)
    accessor = sparse.tree["accessors"][sparse.primitive["attributes"]["POSITION"]]
    del accessor["bufferView"]
    accessor["sparse"] = {
        "count": 4,
        "indices": {"bufferView": sparse.view(bytes((0, 1, 2, 3))), "componentType": 5121},
        "values": {"bufferView": sparse.view(np.array(SQUARE, "f4").tobytes())},
    }
    for file in (strip, fan, none, spread, sparse):
        np.testing.assert_array_equal(file.show(tmp_path), plain)


def test_scenes_nodes_and_mirrored_places(tmp_path):
    plain = File(painted(), quarters()).show(tmp_path)
    file = File(painted(), quarters())
    # The second scene is the one to show; its square is turned, mirrored, moved and scaled.
    file.tree |= {"scene": 1, "scenes": [{"nodes": [0]}, {"nodes": [1]}]}
    half = 0.5**0.5
    file.tree["nodes"] = [
        {"mesh": 0, "translation": [50, 0, 0]},
        {"children": [2], "scale": [-3, 3, 3], "translation": [1e6, 2, 3]},
        {"mesh": 0, "rotation": [0, 0, half, half]},
    ]
    view = file.show(tmp_path)
    # A quarter turn to the left, then left and right exchanged.
    assert corners(view) == [BLACK, GREEN, BLUE, RED]
    assert corners(plain) == [RED, GREEN, BLUE, BLACK]
    del file.tree["scenes"], file.tree["scene"]
    file.tree["nodes"] = [{"mesh": 0}]
    np.testing.assert_array_equal(file.show(tmp_path), plain)
    file.tree["nodes"] = [{"children": [1]}, {"children": [0], "mesh": 0}]
    file.tree["scenes"] = [{"nodes": [0]}]
    with pytest.raises(BadItem, match="has two parents"):
        file.show(tmp_path)


def test_skins_and_morph_targets_stand_at_rest(tmp_path):
    plain = File(painted(), quarters()).show(tmp_path)
    morph = File(painted(), quarters(), POSITION=(np.array(SQUARE) * (3, 1, 1), "f4"))
    target = morph.add(np.array(SQUARE) * (-4, 0, 0), "f4")
    morph.primitive["targets"] = [{"POSITION": target}]
    morph.tree["meshes"][0]["weights"] = [0.5]
    np.testing.assert_array_equal(morph.show(tmp_path), plain)
    skin = File(painted(), quarters(), POSITION=(np.array(SQUARE) * (2, 1, 1), "f4"))
    skin.put(
        JOINTS_0=([(0, 1, 0, 0)] * 4, "u1"), WEIGHTS_0=([(64, 191, 0, 0)] * 4, "u1", "normalized")
    )
    back = np.diag((0.5, 1, 1, 1)).T
    skin.tree["skins"] = [
        {"joints": [1, 2], "inverseBindMatrices": skin.add(np.reshape([back, back], (2, 16)), "f4")}
    ]
    skin.tree["nodes"] = [{"mesh": 0, "skin": 0, "scale": [9, 1, 1]}, {}, {}]
    skin.tree["scenes"] = [{"nodes": [0, 1, 2]}]
    np.testing.assert_array_equal(skin.show(tmp_path), plain)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t["accessors"][1].update(count=1 << 40), "claims .* elements, the limit"),
        (lambda t: t["accessors"][1].update(count=5), "ends at byte"),
        (lambda t: t["bufferViews"][1].update(byteLength=1 << 40), "ends at byte"),
        (lambda t: t["accessors"][1].update(count=3), "a triangle at vertex 3 of 3"),
        (lambda t: t["asset"].update(version="1.0"), "only 2.0 is read"),
        (lambda t: t["nodes"][0].update(mesh=7), "number 7 of its 1 meshes"),
        (lambda t: t["meshes"][0]["primitives"][0].update(mode=1), "holds no triangle"),
        (lambda t: t["nodes"][0].update(translation=[float("nan"), 0, 0]), "not finite"),
        (lambda t: t["nodes"][0].update(scale=[0, 0, 0]), "no extent"),
    ],
)
def test_what_breaks_the_specification_is_named(change, words, tmp_path):
    file = File()
    file.tree["accessors"][0]["count"] = 6
    change(file.tree)
    with pytest.raises(BadItem, match=rf"^a.gltf: .*({words})"):
        file.show(tmp_path)


def test_cut_files_and_missing_companions_are_named(tmp_path):
    content = File().glb()
    source = MeshFolder(str(tmp_path))
    for size in (3, 15, 40, len(content) - 1):
        (tmp_path / "a.glb").write_bytes(content[:size])
        with pytest.raises(BadItem, match=r"^a.glb: cannot be read"):
            source.load("a.glb")
    for uri in ("absent.png", "https://example.com/a.png", "/etc/hostname"):
        with pytest.raises(BadItem, match=r"^a.gltf: cannot be read"):
            File(painted(), uri).show(tmp_path)


WHOLE = File(painted((1, 0.5, 0, 1)), quarters(), COLOR_0=([(1, 1, 1)] * 4, "f4")).glb()


@settings(max_examples=60, derandomize=True, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), min_size=1, max_size=5)
)
def test_whatever_is_damaged_only_a_bad_item_leaves(tmp_path_factory, changes):
    content = bytearray(WHOLE)
    for place, value in changes:
        content[place] = value
    folder = tmp_path_factory.mktemp("mesh")
    (folder / "a.glb").write_bytes(content)
    tracemalloc.start()
    try:
        views = MeshFolder(str(folder), n_views=1, size=16).load("a.glb")["view"]
        assert views[0].shape == (16, 16, 3)
    except BadItem as error:
        assert error.key == "a.glb"  # noqa: PT017 - whether it is bad depends on the damage
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 1 << 28

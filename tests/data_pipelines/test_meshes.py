"""Meshes as turntables: what is seen, from where, in which colours; a real one among them."""

import pathlib

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from data_pipelines.sources import BadItem, MeshFolder
from data_pipelines.synthetic.geometry import Camera
from data_pipelines.synthetic.mesh_renderer import Surface, render_mesh
from lvm_jax.errors import UserError

FRONT = Camera((0.0, -2.0, 0.0), (0.0, 0.0, 0.0), 49.0)
BACKGROUND = 237


def triangle(corners, colours=((1.0, 1.0, 1.0),) * 3, **texture) -> Surface:
    corners = np.array([corners], np.float32)
    normal = np.tile(np.array((0, -1, 0), np.float32), (1, 3, 1))
    return Surface(corners, normal, np.array([colours], np.float32), **texture)


def covered(picture: np.ndarray) -> np.ndarray:
    return (picture != BACKGROUND).any(-1)


def test_a_square_lies_where_the_camera_projects_it():
    low, high = -0.4, 0.3
    corners = [(low, 0, low), (high, 0, low), (high, 0, high), (low, 0, high)]
    halves = [triangle(corners[:3]), triangle([corners[0], *corners[2:]])]
    picture = render_mesh(halves, FRONT, 128)
    x0, y1 = FRONT.project(np.array([(low, 0, low)]), 128)[0]
    x1, y0 = FRONT.project(np.array([(high, 0, high)]), 128)[0]
    expected = np.zeros((128, 128), bool)
    expected[round(y0) : round(y1), round(x0) : round(x1)] = True
    assert (covered(picture) != expected).sum() <= 2 * (expected.sum() ** 0.5)
    assert covered(picture).sum() == pytest.approx((x1 - x0) * (y1 - y0), rel=0.03)


def test_the_nearer_surface_hides_the_farther_whatever_their_order():
    wide = [(-0.9, 0, -0.9), (0.9, 0, -0.9), (0, 0, 0.9)]
    far = triangle([(x, 0.3, z) for x, _, z in wide], colours=((1.0, 0.0, 0.0),) * 3)
    near = triangle([(x / 2, -0.3, z / 2) for x, _, z in wide], colours=((0.0, 1.0, 0.0),) * 3)
    one, other = render_mesh([far, near], FRONT, 64), render_mesh([near, far], FRONT, 64)
    np.testing.assert_array_equal(one, other)
    assert one[36, 32].argmax() == 1
    assert one[50, 14].argmax() == 0


def test_textures_are_upright_and_in_perspective():
    texture = np.zeros((8, 8, 3), np.uint8)
    texture[:4] = (255, 0, 0)  # the upper half
    square = [(-0.5, 0, -0.5), (0.5, 0, -0.5), (0.5, 0, 0.5), (-0.5, 0, 0.5)]
    uv = [(0, 0), (1, 0), (1, 1), (0, 1)]
    halves = [
        triangle(
            [square[i] for i in which],
            texture=texture,
            uv_F32=np.array([[uv[i] for i in which]], np.float32),
        )
        for which in ((0, 1, 2), (0, 2, 3))
    ]
    picture = render_mesh(halves, FRONT, 64)
    assert picture[24, 32, 0] > 100
    assert picture[40, 32, 0] < 5
    # Leaning back, the texture's middle is the square's middle, which is above that of its picture.
    lean = [
        Surface(
            s.corners_F33 + s.corners_F33[..., 2:] * np.array((0, 1.6, 0), np.float32),
            s.normals_F33,
            s.colours_F33,
            s.texture,
            s.uv_F32,
        )
        for s in halves
    ]
    red = render_mesh(lean, FRONT, 64)[:, 32, 0] > 60
    lit = covered(render_mesh(lean, FRONT, 64))[:, 32]
    assert red[lit].mean() < 0.4


@pytest.mark.parametrize("suffix", ["obj", "glb", "stl", "ply", "off"])
def test_every_format_gives_the_same_turntable(suffix, tmp_path):
    mesh = trimesh.creation.box((1.0, 0.5, 0.25))
    mesh.export(tmp_path / f"box.{suffix}")
    source = MeshFolder(
        str(tmp_path), n_views=8, size=48, radius=(2.0, 2.0), elevation=(20.0, 20.0)
    )
    (key,) = source.keys()
    views = source.load(key)["view"]
    assert [view.shape for view in views] == [(48, 48, 3)] * 8
    areas = [covered(view).mean() for view in views]
    np.testing.assert_allclose(areas[:4], areas[4:], atol=0.002)  # a box turned by 180 degrees
    assert 0.05 < min(areas) < max(areas) < 0.3
    assert max(areas) > 1.15 * min(areas)


def test_views_turn_and_stand_upright(tmp_path):
    tall = trimesh.creation.box((0.2, 1.0, 0.2))  # along y
    tall.export(tmp_path / "tall.obj")
    options = {"n_views": 4, "size": 48, "elevation": (0.0, 0.0), "radius": (2.0, 2.0)}
    upright = covered(MeshFolder(str(tmp_path), **options).load("tall.obj")["view"][1])
    assert upright.any(1).sum() > 3 * upright.any(0).sum()
    lying = covered(MeshFolder(str(tmp_path), up="z", **options).load("tall.obj")["view"][1])
    assert lying.any(0).sum() > 3 * lying.any(1).sum()


def test_vertex_and_face_colours_are_drawn(tmp_path):
    for kind in ("vertex", "face"):
        mesh = trimesh.creation.icosphere(subdivisions=2)
        count = len(mesh.vertices) if kind == "vertex" else len(mesh.faces)
        setattr(mesh.visual, f"{kind}_colors", np.tile((200, 20, 20, 255), (count, 1)))
        mesh.export(tmp_path / f"{kind}.ply")
    plain = trimesh.creation.icosphere(subdivisions=2)
    plain.export(tmp_path / "plain.stl")
    source = MeshFolder(str(tmp_path), n_views=2, size=32)
    for kind in ("vertex.ply", "face.ply"):
        r, g, b = source.load(kind)["view"][0][16, 16].astype(int)
        assert r > 5 * g
        assert r > 5 * b
    r, g, b = source.load("plain.stl")["view"][0][16, 16].astype(int)
    assert r == g == b


def test_radius_and_elevation_follow_from_the_key_and_the_seed(tmp_path):
    mesh = trimesh.creation.box((1.0, 0.6, 0.3))
    for name in ("a.stl", "b.stl"):
        mesh.export(tmp_path / name)
    source = MeshFolder(str(tmp_path), n_views=3, size=32)
    a = source.load("a.stl")["view"]
    np.testing.assert_array_equal(a, source.load("a.stl")["view"])
    assert (a[0] != source.load("b.stl")["view"][0]).any()
    other = MeshFolder(str(tmp_path), n_views=3, size=32, seed=1)
    assert (a[0] != other.load("a.stl")["view"][0]).any()


def test_a_real_textured_mesh(tmp_path):
    source = MeshFolder(str(pathlib.Path(__file__).parent / "ammo_box"), size=64)
    assert source.keys() == ["ammoBox.obj"]
    views = source.load("ammoBox.obj")["view"]
    assert len(views) == 24
    for view in views:
        seen = covered(view)
        assert 0.08 < seen.mean() < 0.5
        assert not seen[[0, -1]].any()
        assert not seen[:, [0, -1]].any()
        wood = view[seen].astype(int)
        assert (wood[:, 0] > wood[:, 2]).mean() > 0.8  # brown
        assert wood.std() > 12  # planks, not one colour
    assert len({view.tobytes() for view in views}) == 24


def test_damaged_meshes_are_bad_items_and_impossible_options_are_refused(tmp_path):
    (tmp_path / "text.obj").write_text("not a mesh")
    (tmp_path / "cut.glb").write_bytes(b"glTF\x02\x00\x00\x00")
    (tmp_path / "flat.off").write_text("OFF\n3 1 0\n0 0 0\n0 0 0\n0 0 0\n3 0 1 2\n")
    trimesh.creation.icosphere(subdivisions=3).export(tmp_path / "many.stl")
    source = MeshFolder(str(tmp_path), max_faces=100)
    for key, words in (
        ("text.obj", "holds no triangle|cannot be read"),
        ("cut.glb", "cannot be read"),
        ("flat.off", "has no extent|holds no triangle"),
        ("many.stl", "has 1280 triangles, more than max_faces 100"),
    ):
        with pytest.raises(BadItem, match=f"^{key}: ({words})"):
            source.load(key)
    for wrong in ({"n_views": 0}, {"radius": (0.5, 1.0)}, {"elevation": (10.0, -10.0)}):
        with pytest.raises(UserError):
            MeshFolder(str(tmp_path), **wrong)


@pytest.mark.parametrize("suffix", ["obj", "ply", "off", "glb"])
def test_a_mesh_at_map_coordinates_keeps_its_shape(suffix, tmp_path):
    mesh = trimesh.creation.box((1.0, 0.5, 0.25))
    place = np.eye(4)
    place[:3, 3] = (500_123.25, 4_080_928.5, 12.0)
    if suffix == "ply":  # trimesh writes float32
        far = trimesh.transform_points(mesh.vertices, place)
        rows = [" ".join(map(repr, row)) for row in far.tolist()]
        rows += [f"3 {a} {b} {c}" for a, b, c in mesh.faces]
        head = "ply\nformat ascii 1.0\nelement vertex 8\n"
        head += "".join(f"property double {axis}\n" for axis in "xyz")
        head += "element face 12\nproperty list uchar int vertex_indices\nend_header\n"
        (tmp_path / "far.ply").write_text(head + "\n".join(rows) + "\n")
        mesh.export(tmp_path / "near.ply", encoding="ascii")
    elif suffix == "off":
        mesh.export(tmp_path / "near.off")
        mesh.copy().apply_transform(place).export(tmp_path / "far.off", digits=12)
    else:
        trimesh.Scene(mesh).export(tmp_path / f"near.{suffix}")
        scene = trimesh.Scene()
        scene.add_geometry(mesh, transform=place)
        scene.export(tmp_path / f"far.{suffix}")
    options = {"n_views": 3, "size": 32, "radius": (2.0, 2.0), "elevation": (20.0, 20.0)}
    source = MeshFolder(str(tmp_path), **options)
    near, far = (np.array(source.load(f"{name}.{suffix}")["view"]) for name in ("near", "far"))
    assert (np.abs(near.astype(int) - far) > 8).mean() < 0.01


def save_obj(folder, material, colours=((), (), (), ())):
    square = [(-1, -1, 0), (1, -1, 0), (1, 1, 0), (-1, 1, 0)]
    lines = ["mtllib a.mtl"]
    lines += [" ".join(map(str, ("v", *v, *c))) for v, c in zip(square, colours, strict=True)]
    lines += ["vt 0 0", "vt 1 0", "vt 1 1", "vt 0 1", "usemtl m", "f 1/1 2/2 3/3", "f 1/1 3/3 4/4"]
    (folder / "a.obj").write_text("\n".join(lines) + "\n")
    (folder / "a.mtl").write_text("newmtl m\n" + material)
    Image.new("RGB", (4, 4), (200, 200, 200)).save(folder / "t.png")


@pytest.mark.parametrize(
    ("material", "colours", "expected"),
    [
        ("map_Kd t.png\n", ((),) * 4, (200, 200, 200)),
        ("Kd 1 0 0\nmap_Kd t.png\n", ((),) * 4, (200, 0, 0)),
        ("Kd 0 1 0\n", ((),) * 4, (0, 255, 0)),
        ("Kd 1 1 0\nmap_Kd t.png\n", ((0, 1, 1),) * 4, (0, 200, 0)),
        ("Kd 1 1 0\n", ((0, 1, 1),) * 4, (0, 255, 0)),
    ],
)
def test_an_obj_multiplies_material_texture_and_colours_of_vertices(
    material, colours, expected, tmp_path
):
    save_obj(tmp_path, material, colours)
    options = {"n_views": 4, "size": 32, "radius": (2.0, 2.0), "elevation": (0.0, 0.0)}
    view = MeshFolder(str(tmp_path), **options).load("a.obj")["view"][0]
    light = 0.58 + 0.42 * 0.52
    np.testing.assert_allclose(view[16, 16], np.array(expected) * light, atol=2)


@pytest.mark.parametrize(
    ("vertex", "face", "words"),
    [
        ("nan 1 1", "3 0 1 2", "not finite"),
        ("inf 1 1", "3 0 1 2", "not finite"),
        ("1e308 -1e308 1", "3 0 1 2", "no extent|not finite"),
        ("0 1 0", "3 0 1 9", "cannot be read"),
        ("0 1 0", "3 0 -1 2", "cannot be read"),
        ("2 0 0", "3 0 1 2", "shows nothing"),
    ],
)
def test_numbers_that_make_no_mesh_are_named(vertex, face, words, tmp_path):
    (tmp_path / "a.off").write_text(f"OFF\n3 1 0\n-1e308 0 0\n1 0 0\n{vertex}\n{face}\n")
    if "e308" not in vertex:
        (tmp_path / "a.off").write_text(f"OFF\n3 1 0\n0 0 0\n1 0 0\n{vertex}\n{face}\n")
    with pytest.raises(BadItem, match=rf"^a.off: .*({words})"):
        MeshFolder(str(tmp_path), n_views=2, size=16).load("a.off")


def test_a_tiny_mesh_and_one_with_a_face_without_area_look_like_any_other(tmp_path):
    mesh = trimesh.creation.box((1.0, 0.5, 0.25))
    mesh.export(tmp_path / "a.off")
    mesh.apply_scale(1e-9)
    mesh.export(tmp_path / "b.off", digits=20)
    lines = (tmp_path / "a.off").read_text().replace("8 12 0", "8 13 0", 1).rstrip()
    (tmp_path / "c.off").write_text(lines + "\n3 0 0 1\n")
    options = {"n_views": 2, "size": 32, "radius": (2.0, 2.0), "elevation": (20.0, 20.0)}
    source = MeshFolder(str(tmp_path), **options)
    for name in ("b.off", "c.off"):
        np.testing.assert_array_equal(source.load(name)["view"], source.load("a.off")["view"])


WHOLE = {
    form: trimesh.creation.box((1.0, 0.5, 0.25)).export(file_type=form)
    for form in ("stl", "ply", "off", "obj")
}


@pytest.mark.parametrize("form", sorted(WHOLE))
def test_whatever_is_damaged_only_a_bad_item_leaves(form, tmp_path):
    whole = WHOLE[form] if isinstance(WHOLE[form], bytes) else WHOLE[form].encode()
    places = st.integers(0, len(whole) - 1)

    @settings(max_examples=25, derandomize=True, deadline=None)
    @given(st.lists(st.tuples(places, st.integers(0, 255)), min_size=1, max_size=4), places)
    def damage(changes, cut):
        content = bytearray(whole)
        for place, value in changes:
            content[place] = value
        (tmp_path / f"a.{form}").write_bytes(content if cut % 2 else content[:cut])
        try:
            views = MeshFolder(str(tmp_path), n_views=1, size=8).load(f"a.{form}")["view"]
        except BadItem as error:
            assert error.key == f"a.{form}"  # noqa: PT017 - whether it is bad depends on the damage
            return
        assert views[0].shape == (8, 8, 3)

    damage()

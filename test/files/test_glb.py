"""GLB files by the rules of glTF 2.0, read here from the bytes."""

import json
import struct

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from vggt_ros.files.glb import write_glb

XYZ = np.array([[1.0, 2, 3], [-4, 5, 0.5], [0, 0, -1]])
RGB = np.array([[255, 0, 1], [2, 3, 4], [5, 6, 7]], np.uint8)
WAY = np.array([[0.0, 0, 0], [1, 0, 0], [2, 1, 0], [2, 2, 0.5]])
DTYPES = {5126: np.float32, 5121: np.uint8}


def read(path):
    """(name, mode, values of its attributes, rotation of its node) of every mesh; all lengths are checked."""
    data = path.read_bytes()
    magic, version, length = struct.unpack_from('<4sII', data)
    assert (magic, version, length) == (b'glTF', 2, len(data))
    chunks, place = [], 12
    while place < len(data):
        size, kind = struct.unpack_from('<I4s', data, place)
        assert size % 4 == 0
        chunks.append((kind, data[place + 8 : place + 8 + size]))
        place += 8 + size
    assert place == len(data)
    assert [kind for kind, _ in chunks] == [b'JSON', b'BIN\0'][: len(chunks)]
    fields = json.loads(chunks[0][1])
    meshes = []
    for number in fields.get('scenes', [{'nodes': []}])[0]['nodes']:
        node = fields['nodes'][number]
        primitive = fields['meshes'][node['mesh']]['primitives'][0]
        values = {}
        for name, index in primitive['attributes'].items():
            accessor = fields['accessors'][index]
            view = fields['bufferViews'][accessor['bufferView']]
            assert view['byteOffset'] % 4 == 0
            part = chunks[1][1][view['byteOffset'] :][: view['byteLength']]
            columns = int(accessor['type'].removeprefix('VEC'))
            values[name] = np.frombuffer(part, DTYPES[accessor['componentType']]).reshape(-1, columns)
            assert len(values[name]) == accessor['count']
            if name == 'POSITION':  # which the format demands
                assert accessor['min'] == values[name].min(0).tolist()
                assert accessor['max'] == values[name].max(0).tolist()
            else:
                assert accessor['normalized']
        meshes.append((node['name'], primitive['mode'], values, node['rotation']))
    return meshes


def test_points_their_colours_and_the_way(tmp_path):
    write_glb(tmp_path / 'a.glb', XYZ, RGB, WAY)
    cloud, way = read(tmp_path / 'a.glb')
    assert (cloud[:2], way[:2]) == (('cloud', 0), ('camera', 3))
    np.testing.assert_array_equal(cloud[2]['POSITION'], XYZ.astype(np.float32))
    np.testing.assert_array_equal(cloud[2]['COLOR_0'][:, :3], RGB)
    assert (cloud[2]['COLOR_0'][:, 3] == 255).all()
    np.testing.assert_array_equal(way[2]['POSITION'], WAY.astype(np.float32))


def test_up_is_up(tmp_path):
    write_glb(tmp_path / 'a.glb', XYZ, RGB, WAY)
    for _, _, _, rotation in read(tmp_path / 'a.glb'):
        turn = Rotation.from_quat(rotation)
        np.testing.assert_allclose(turn.apply([0, 0, 1]), [0, 1, 0], atol=1e-7)
        np.testing.assert_allclose(turn.apply([1, 0, 0]), [1, 0, 0], atol=1e-7)


@pytest.mark.parametrize(
    ('points', 'places', 'names'), [(3, 1, ['cloud']), (0, 4, ['camera']), (0, 0, []), (1, 2, ['cloud', 'camera'])]
)
def test_what_is_empty_is_left_out(points, places, names, tmp_path):
    write_glb(tmp_path / 'a.glb', XYZ[:points], RGB[:points], WAY[:places])
    assert [mesh[0] for mesh in read(tmp_path / 'a.glb')] == names

"""Inputs in which bytes are wrong: read, read but for what is counted, or refused in one line; never anything else.

python test/files/test_damage.py SECONDS [SEED]     # as long as one likes
"""

import shutil
import sys
import tempfile
import time
from pathlib import Path

import inputs
import numpy as np
import pytest
import test_layouts

from vggt_ros.files.errors import SequenceError
from vggt_ros.files.opening import open_sequence

RUNS = 120
MAKERS = {
    'ros1': inputs.bag('ros1'),
    'ros1 lz4': inputs.bag('ros1', 'LZ4'),
    'ros1 bz2': inputs.bag('ros1', 'BZ2'),
    'sqlite3': inputs.bag('sqlite3'),
    'sqlite3 zstd by message': inputs.bag('sqlite3', 'MESSAGE'),
    'sqlite3 zstd by file': inputs.bag('sqlite3', 'FILE'),
    'mcap': inputs.bag('mcap'),
    'mcap zstd': inputs.bag('mcap', 'STORAGE'),
    'mcap without chunks': inputs.plain_mcap(),
    'packets of a video': inputs.video_packets(inputs.packets.FFMPEG, inputs.packets.NEW),
    'mp4': inputs.video('walk.mp4'),
    'mkv': inputs.video('walk.mkv'),
    'avi': inputs.video('walk.avi', 'mjpeg'),
    'jpg': lambda folder: inputs.pictures(folder, 'jpg'),
    'webp': lambda folder: inputs.pictures(folder, 'webp'),
    'png of 16 bits': lambda folder: inputs.pictures(folder, 'png', lambda rgb: rgb[..., 0].astype(np.uint16) << 4),
    'tiff': lambda folder: inputs.pictures(folder, 'tiff', lambda rgb: rgb.astype(np.float32) / 255),
    'raw kitti': test_layouts.raw_kitti,
    'opencv': inputs.by_opencv,
    'camera_info': inputs.calibrated(inputs.OST % 'camera_model: fisheye'),
    'kalibr': inputs.calibrated(inputs.KALIBR % 'pinhole'),
    **{make.__name__: inputs.dataset(make) for make in test_layouts.OPENED},
}
TEXTS = {'.txt', '.csv', '.yaml', '.json'}


def make_all(base):
    """(name, folder, what to open in it) of every input."""
    made = []
    for name, make in MAKERS.items():
        folder = base / name
        folder.mkdir()
        made.append((name, folder, (make(folder) or folder).relative_to(folder)))
    return made


def spoil(data, rng):
    """Bytes changed, cut off, overwritten, put in, taken out or copied, at one to three places."""
    kind = rng.integers(6)
    for _ in range(rng.integers(1, 4)):
        if not data:
            break
        at, length = int(rng.integers(len(data))), int(rng.integers(1, 60))
        if kind == 0:
            data[at] = int(rng.integers(256))
        elif kind == 1:
            del data[at:]
        elif kind == 2:
            data[at : at + length] = bytes(length)
        elif kind == 3:
            data[at:at] = rng.integers(0, 256, length).astype(np.uint8).tobytes()
        elif kind == 4:
            del data[at : at + length]
        else:
            other = int(rng.integers(len(data)))
            data[at : at + 8] = data[other : other + 8]


def attempt(made, base, seed):
    """Spoil one file of one input and read it; the name of both, for a failure. Raises what must not be."""
    rng = np.random.default_rng(seed)
    name, folder, place = made[rng.integers(len(made))]
    copy = base / f'copy {seed}'
    shutil.copytree(folder, copy)
    files = sorted(x for x in copy.rglob('*') if x.is_file())
    texts = [x for x in files if x.suffix in TEXTS]
    chosen = texts if texts and rng.random() < 0.5 else files
    file = chosen[rng.integers(len(chosen))]
    data = bytearray(file.read_bytes())
    spoil(data, rng)
    file.write_bytes(data)
    try:
        sequence = open_sequence(copy / place)
        for item in sequence:
            sequence.read_depth(item.index)
    except SequenceError as error:
        if '\n' in str(error):
            raise AssertionError(f'seed {seed}, {name}: {error}') from error
    except Exception as error:
        raise AssertionError(f'seed {seed}, {name}, {file.name}: {error!r}') from error
    finally:
        shutil.rmtree(copy)


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    return make_all(tmp_path_factory.mktemp('made'))


@pytest.mark.parametrize('part', range(3))
def test_wrong_bytes_raise_nothing_that_is_not_declared(made, part, tmp_path):
    for seed in range(RUNS * part, RUNS * (part + 1)):
        attempt(made, tmp_path, seed)


@pytest.mark.parametrize(
    ('make', 'file', 'content', 'complaint'),
    [
        ('tum', 'rgb.txt', b'1.5 rgb/a\0b.png\n', 'null'),
        ('tum', 'calibration.txt', b'', 'there are no numbers in it'),
        ('tum', 'groundtruth.txt', b'99999999999999 0 0 0 0 0 0 1\n', 'is not a time in seconds'),
        ('euroc', 'mav0/cam0/data.csv', b'99999999999999999999,a.png\n', 'is not a time in nanoseconds'),
        ('kitti', 'poses/07.txt', b' ', '0 poses for 4 pictures'),
        ('colmap', 'sparse/0/cameras.txt', b'', 'there is no camera 1 in it'),
        (
            'raw kitti',
            '2011_09_26_drive_0001_sync/image_02/timestamps.txt',
            b'2011-99-26 13:02:25.1\n' * 4,
            'timestamps',
        ),
        ('raw kitti', '2011_09_26_drive_0001_sync/oxts/data/0000000001.txt', b'', 'there are no numbers in it'),
    ],
)
def test_what_once_was_no_declared_error(made, make, file, content, complaint, tmp_path):
    _, folder, place = next(x for x in made if x[0] == make)
    shutil.copytree(folder, tmp_path / 'copy')
    (tmp_path / 'copy' / file).write_bytes(content)
    with pytest.raises(SequenceError, match=complaint):
        open_sequence(tmp_path / 'copy' / place)


def test_true_poses_that_are_none_are_left_out(made, tmp_path):
    """One that mirrors, one that stretches, one that is not finite."""
    _, folder, place = next(x for x in made if x[0] == 'kitti')
    shutil.copytree(folder, tmp_path / 'copy')
    file = tmp_path / 'copy' / 'poses' / '07.txt'
    lines = file.read_text().splitlines()
    lines[:3] = ['-1 0 0 0 0 1 0 0 0 0 1 0', '2 0 0 0 0 2 0 0 0 0 2 0', 'nan 0 0 0 0 1 0 0 0 0 1 0']
    file.write_text('\n'.join(lines) + '\n')
    sequence = open_sequence(tmp_path / 'copy' / place)
    assert len(sequence.trajectory) == len(lines) - 3
    assert '3 of 4 pictures have no true pose' in sequence.notes


if __name__ == '__main__':
    with tempfile.TemporaryDirectory() as folder:
        inputs_made, seed, failed = make_all(Path(folder)), int(sys.argv[2]) if len(sys.argv) > 2 else 10**6, 0
        until, first = time.monotonic() + float(sys.argv[1]), seed
        while time.monotonic() < until:
            try:
                attempt(inputs_made, Path(folder), seed)
            except AssertionError as found:
                failed += 1
                print(found)
            seed += 1
        print(f'{seed - first} runs, {failed} failed')

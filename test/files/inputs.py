"""Inputs as programs write them, each with what must become of it; docs/guides/recordings.md has a table of them.

python test/files/inputs.py     # prints the table
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import test_bags
import test_layouts
import test_videos

import packets
from bags import START, BagWriter, picture
from vggt_ros.files.trajectory import format_stamp

READ, NOTED, COUNTED, REFUSED = 'read', 'read, and said', 'counted', 'refused'
COUNT = 6


@dataclass(frozen=True)
class Case:
    """what: the input. program: that writes it so. make: writes it into a folder; where to open it. result: one of the
    four. words: a regular expression of what is said. count: pictures that come; None: not asked. topic: to choose."""

    what: str
    program: str
    make: Callable[[Path], Path | None]
    result: str = READ
    words: str = ''
    count: int | None = COUNT
    topic: str | None = None


def write(path: Path, rgb: np.ndarray, *options: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.ascontiguousarray(rgb[..., ::-1] if rgb.ndim == 3 else rgb), options)


def pictures(folder: Path, suffix: str = 'png', change: Callable[[np.ndarray], np.ndarray] = lambda rgb: rgb) -> None:
    for i in range(COUNT):
        write(folder / f'{i:04d}.{suffix}', change(picture(i)))


def by_pillow(suffix: str, mode: str, **options) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        from PIL import Image

        for i in range(COUNT):
            Image.fromarray(picture(i)).convert(mode).save(folder / f'{i}.{suffix}', **options)

    return make


def turned(folder: Path, plain: tuple[int, ...] = ()) -> None:
    """A phone held upright: stored lying, EXIF orientation 6; plain: those that the phone forgot to turn."""
    from PIL import Image

    for i in range(COUNT):
        exif = Image.Exif()
        exif[0x0112] = 1 if i in plain else 6
        rgb = picture(i) if i in plain else np.ascontiguousarray(np.rot90(picture(i)))
        Image.fromarray(rgb).save(folder / f'IMG_{i:04d}.jpg', exif=exif, quality=95)


def transparent(folder: Path) -> None:
    for i in range(COUNT):
        alpha = np.full(picture(i).shape[:2], 255, np.uint8)
        alpha[:4] = 0
        cv2.imwrite(str(folder / f'{i}.png'), np.dstack([picture(i)[..., ::-1], alpha]))


def spoiled(spoil: Callable[[bytes], bytes], suffix: str = 'jpg') -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        pictures(folder, suffix)
        file = folder / f'0003.{suffix}'
        file.write_bytes(spoil(file.read_bytes()))

    return make


def one_portrait(folder: Path) -> None:
    pictures(folder)
    write(folder / '0000.png', picture(0)[:, 8:20])


def named(names: list[str]) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        for i, name in enumerate(names):
            write(folder / f'{name}.png', picture(i))

    return make


def beside(name: str, pixels: Callable[[int], np.ndarray]) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        pictures(folder)
        for i in range(COUNT):
            write(folder / name.format(i), pixels(i))

    return make


def two_cameras(folder: Path) -> None:
    for side in ('left', 'right'):
        pictures(folder / 'images' / side)


def broken_heic(folder: Path) -> None:
    """Which is refused where it is installed, too."""
    (folder / 'IMG_0001.HEIC').write_bytes(b'\0\0\0\x18ftypheic')


def raw_photograph(folder: Path) -> None:
    (folder / 'IMG_0001.CR3').write_bytes(b'\0\0\0\x18ftypcrx ')


def dataset(make: Callable[[Path], None]) -> Callable[[Path], Path]:
    def made(folder: Path) -> Path:
        make(folder)
        return folder / test_layouts.OPENED[make][0]

    return made


def bag(kind: str, compress: str | None = None) -> Callable[[Path], Path]:
    return lambda folder: test_bags.walk(folder / ('walk.bag' if kind == 'ros1' else 'walk'), kind, COUNT, compress)


def bag_folder(folder: Path) -> None:
    test_bags.walk(folder / 'walk.bag', 'ros1')


def with_metadata(spoil: Callable[[Path], None]) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = test_bags.walk(folder / 'walk', 'mcap')
        spoil(path)
        return path

    return make


def killed(folder: Path) -> Path:
    path = test_bags.storage(test_bags.large(folder / 'walk', 'mcap', 'STORAGE', noise=False))
    path.write_bytes(path.read_bytes()[:-400])
    return path


def damaged_bag(kind: str, compress: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = test_bags.large(folder / ('walk.bag' if kind == 'ros1' else 'walk'), kind, compress)
        test_bags.flip(path if kind == 'ros1' else test_bags.storage(path), 0.5)
        return path

    return make


def plain_mcap(ros1: bool = False, topic: str = '/cam/image_raw') -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        schemas = [('sensor_msgs/Image' if ros1 else test_bags.IMAGE, 'ros1msg' if ros1 else 'ros2msg', '')]
        channels = [(1, topic, 'ros1' if ros1 else 'cdr'), (2, '/notes', 'json')]
        schemas.append(('Note', 'jsonschema', '{}'))
        messages = [(1, *x) for x in test_bags.images(ros1, COUNT)] + [(2, START, b'{}')]
        return test_bags.plain_mcap(folder / 'walk.mcap', schemas, channels, messages, 'ros1' if ros1 else 'ros2')

    return make


def only(schema: str, topic: str, encoding: str = 'cdr') -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        messages = [(1, START, bytes(40))]
        return test_bags.plain_mcap(folder / 'walk.mcap', [(schema, 'ros2msg', '')], [(1, topic, encoding)], messages)

    return make


def video_packets(kind: str, definition: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        return packets.write(folder / 'walk', 'mcap', kind, definition, 'h264', packets.packets('libx264', COUNT))

    return make


def compressed(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        with BagWriter(folder / 'walk', 'mcap') as writer:
            for i in range(COUNT):
                writer.info('/cam/camera_info', START + i * 10**8)
                writer.compressed('/cam/image_raw/compressed', START + i * 10**8, i, name)
        return folder / 'walk'

    return make


def one_cut_off(folder: Path) -> Path:
    with BagWriter(folder / 'walk', 'mcap') as writer:
        for i in range(COUNT):
            data = cv2.imencode('.jpg', picture(i)[..., ::-1])[1].ravel()
            data = data[: len(data) // 2] if i == 3 else data
            writer.info('/cam/camera_info', START + i * 10**8)
            writer.write('/cam/image_raw/compressed', 'CompressedImage', START + i * 10**8, format='jpeg', data=data)
    return folder / 'walk'


def unfinished(folder: Path) -> Path:
    (folder / 'walk.bag.active').write_bytes(b'#ROSBAG V2.0\n')
    return folder / 'walk.bag.active'


def video(name: str, codec: str = 'libx264', **options) -> Callable[[Path], Path]:
    return lambda folder: test_videos.record(folder / name, codec, **options)


def phone(folder: Path) -> Path:
    path = test_videos.record(folder / 'IMG_0001.mov')
    test_videos.turn(path)
    return path


def battery_empty(folder: Path) -> Path:
    path = test_videos.record(folder / 'walk.mp4')
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def calibrated(text: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        pictures(folder)
        (folder / 'intrinsics.yaml').write_text(text)

    return make


def by_opencv(folder: Path) -> None:
    pictures(folder)
    storage = cv2.FileStorage(str(folder / 'intrinsics.yaml'), cv2.FILE_STORAGE_WRITE)
    for name, value in (('image_width', 32), ('image_height', 24)):
        storage.write(name, value)
    storage.write('camera_matrix', np.array([[30.0, 0, 15.5], [0, 30, 11.5], [0, 0, 1]]))
    storage.write('distortion_coefficients', np.zeros((1, 5)))
    storage.release()


OST = """image_width: 32
image_height: 24
camera_name: eye
camera_matrix: {rows: 3, cols: 3, data: [30, 0, 15.5, 0, 30, 11.5, 0, 0, 1]}
%s
distortion_coefficients: {rows: 1, cols: 4, data: [0.1, 0, 0, 0]}
rectification_matrix: {rows: 3, cols: 3, data: [1, 0, 0, 0, 1, 0, 0, 0, 1]}
projection_matrix: {rows: 3, cols: 4, data: [30, 0, 15.5, 0, 0, 30, 11.5, 0, 0, 0, 1, 0]}
"""
KALIBR = """cam0:
  camera_model: %s
  intrinsics: [30, 30, 15.5, 11.5]
  distortion_model: radtan
  distortion_coeffs: [0.1, 0, 0, 0]
  resolution: [32, 24]
  rostopic: /cam0/image_raw
"""
SECONDS = [f'{1700000000 + i / 4:.2f}'.rstrip('0').rstrip('.') for i in range(COUNT)]
STAMPS = [format_stamp(START + i * 10**8).replace('.', '') for i in range(COUNT)]
TOPIC = '/cam/image_raw'  # of bags with others beside
ASSUMED = 'no stamps: 10 pictures per second'
FILES = 'OpenCV'

# Chapter of the table -> (the library that reads it, cases).
CASES: dict[str, tuple[str, list[Case]]] = {
    'Pictures': (
        FILES,
        [
            Case('a folder of PNG, JPEG, BMP, TIFF, WebP, PGM, PPM', 'any', pictures, NOTED, ASSUMED),
            Case('WebP', 'any', lambda f: pictures(f, 'webp'), NOTED, ASSUMED),
            Case('AVIF', 'any', by_pillow('avif', 'RGB', quality=90), NOTED, ASSUMED),
            Case('JPEG, turned by EXIF', 'phones', turned, NOTED, ASSUMED),
            Case('the same, one not turned', 'phones', lambda f: turned(f, (0,)), NOTED, ASSUMED),
            Case('JPEG in CMYK', 'layout programs', by_pillow('jpg', 'CMYK', quality=95), NOTED, ASSUMED),
            Case('PNG with a palette', 'any', by_pillow('png', 'P'), NOTED, ASSUMED),
            Case('PNG with transparency', 'any', transparent, NOTED, ASSUMED),
            Case(
                '12 bits in a PNG or TIFF of 16',
                'industrial and thermal cameras',
                lambda f: pictures(f, 'png', lambda rgb: (255 - rgb[..., 0]).astype(np.uint16) << 4),
                NOTED,
                'taken as 12 bits',
            ),
            Case(
                'TIFF of decimal numbers',
                'image processing',
                lambda f: pictures(f, 'tiff', lambda rgb: rgb.astype(np.float32) / 255),
                NOTED,
                '0 is taken as black, 1 as white',
            ),
            Case(
                'names with blanks, brackets, % and #',
                'any',
                named([f'Bild ü {i} [5% #é]' for i in range(COUNT)]),
                NOTED,
                ASSUMED,
            ),
            Case('names that are seconds', 'scripts', named(SECONDS), NOTED, 'from the names: seconds'),
            Case(
                'names that are nanoseconds, micro- or milliseconds', 'recorders', named(STAMPS), NOTED, 'nanoseconds'
            ),
            Case(
                'a JPEG that is cut off',
                'a full card',
                spoiled(lambda data: data[: len(data) // 3]),
                COUNTED,
                'is cut off',
                COUNT - 1,
            ),
            Case(
                'an empty file',
                'a copy that stopped',
                spoiled(lambda data: b''),
                COUNTED,
                'the file is empty',
                COUNT - 1,
            ),
            Case(
                'one picture of another size', 'any', one_portrait, COUNTED, '12x24 pixels, most have 32x24', COUNT - 1
            ),
            Case(
                'masks or depth among the pictures', 'labelling', beside('{}_mask.png', picture), NOTED, 'are left out'
            ),
            Case(
                'coloured depth in `depth/`',
                'other networks',
                beside('depth/{:04d}.png', picture),
                NOTED,
                'depth/ is left out',
            ),
            Case(
                'pictures of two cameras',
                'COLMAP rigs',
                two_cameras,
                REFUSED,
                'give one of them: images/left .6 pictures',
            ),
            Case(
                'HEIC where pillow-heif is not installed', 'phones', broken_heic, REFUSED, 'cannot be read as a picture'
            ),
            Case('JPEG XL, raw photographs', 'cameras', raw_photograph, REFUSED, 'convert them to jpg'),
        ],
    ),
    "Datasets, from their roots or a camera's folder": (
        FILES,
        [
            Case('TUM RGB-D, ETH3D SLAM', '', dataset(test_layouts.tum), NOTED, 'interpolated', 4),
            Case('EuRoC, TUM-VI', '', dataset(test_layouts.euroc), NOTED, 'interpolated', 4),
            Case('KITTI odometry', '', dataset(test_layouts.kitti), NOTED, 'image_2 is taken', 4),
            Case('KITTI raw', '', test_layouts.raw_kitti, count=4),
            Case('ScanNet', '', dataset(test_layouts.scannet), NOTED, 'no true pose', 4),
            Case('7-Scenes', '', dataset(test_layouts.seven_scenes), NOTED, 'not registered', 4),
            Case('Replica', '', dataset(test_layouts.replica), NOTED, ASSUMED, 4),
            Case(
                '`transforms.json`', 'NeRF, instant-ngp, nerfstudio', dataset(test_layouts.nerf), NOTED, 'as metres', 4
            ),
            Case('COLMAP, ETH3D multi-view', '', dataset(test_layouts.colmap), NOTED, 'as metres', 4),
        ],
    ),
    '`intrinsics.yaml` beside pictures': (
        'PyYAML, OpenCV',
        [
            Case(
                'image_width, image_height, fx, fy, cx, cy',
                'by hand',
                calibrated('image_width: 32\nimage_height: 24\nfx: 30\nfy: 30\ncx: 15.5\ncy: 11.5\n'),
                NOTED,
                ASSUMED,
            ),
            Case('camera_info', 'camera_calibration', calibrated(OST % 'distortion_model: plumb_bob'), NOTED, ASSUMED),
            Case(
                'the same of a fisheye', 'camera_calibration', calibrated(OST % 'camera_model: fisheye'), NOTED, ASSUMED
            ),
            Case('%YAML:1.0', 'OpenCV', by_opencv, NOTED, ASSUMED),
            Case('camchain, pinhole', 'Kalibr', calibrated(KALIBR % 'pinhole'), NOTED, ASSUMED),
            Case(
                'camchain, omni, ds, eucm',
                'Kalibr',
                calibrated(KALIBR % 'omni'),
                REFUSED,
                'cam0 is omni-radtan; known are',
            ),
            Case(
                'an entry that is not known',
                'any',
                calibrated(OST % 'lens_type: wide'),
                REFUSED,
                'lens_type: not known here',
            ),
        ],
    ),
    'Bags': (
        'rosbags, mcap, sqlite3; packets of videos with PyAV',
        [
            Case('ROS 1', 'rosbag record', bag('ros1')),
            Case('ROS 1, lz4 or bz2', 'rosbag record --lz4', bag('ros1', 'LZ4')),
            Case('a folder of one', 'archives', bag_folder),
            Case('ROS 1, not ended', 'a recorder that was killed', unfinished, REFUSED, 'run "rosbag reindex'),
            Case('SQLite', 'ros2 bag record -s sqlite3', bag('sqlite3')),
            Case('SQLite, zstd by file or message', 'ros2 bag record', bag('sqlite3', 'FILE')),
            Case('MCAP, chunks with zstd or lz4', 'ros2 bag record', bag('mcap', 'STORAGE')),
            Case('MCAP of ROS 1', 'mcap convert', plain_mcap(True), NOTED, 'no CameraInfo'),
            Case('MCAP with JSON or protobuf beside', 'Foxglove', plain_mcap(), NOTED, 'no CameraInfo'),
            Case('MCAP without an index', 'a recorder that was killed', killed, NOTED, 'has no index', 9, TOPIC),
            Case(
                'metadata.yaml that is empty or wrong',
                'reindex, renaming',
                with_metadata(lambda p: (p / 'metadata.yaml').write_bytes(b'')),
                NOTED,
                'metadata.yaml does not say',
            ),
            Case(
                'a damaged chunk',
                'a bad cable',
                damaged_bag('mcap', 'STORAGE'),
                COUNTED,
                'the chunk at byte',
                None,
                TOPIC,
            ),
            Case(
                'a damaged chunk of ROS 1',
                'a bad cable',
                damaged_bag('ros1', 'LZ4'),
                COUNTED,
                'a chunk at',
                None,
                TOPIC,
            ),
            Case('JPEG or PNG in CompressedImage', 'image_transport', compressed('rgb8; png compressed bgr8')),
            Case('one of them cut off', 'a bad link', one_cut_off, COUNTED, 'is cut off', COUNT - 1),
            Case(
                'FFMPEGPacket',
                'ffmpeg_image_transport',
                video_packets(packets.FFMPEG, packets.NEW),
                NOTED,
                'no CameraInfo',
            ),
            Case('CompressedVideo', 'Foxglove', video_packets(packets.FOXGLOVE, packets.VIDEO), NOTED, 'no CameraInfo'),
            Case(
                'H.264, H.265, AV1, VP9 in CompressedImage',
                'some drivers',
                video_packets(packets.COMPRESSED, ''),
                NOTED,
                'no CameraInfo',
            ),
            Case(
                'Theora',
                'theora_image_transport',
                only('theora_image_transport/msg/Packet', '/cam/theora'),
                REFUSED,
                'video packets',
            ),
            Case(
                'images in protobuf',
                'Foxglove',
                only('foxglove.CompressedImage', '/cam/image', 'protobuf'),
                REFUSED,
                'images in protobuf',
            ),
            Case(
                'depth alone',
                'compressed_depth_image_transport',
                only('sensor_msgs/msg/CompressedImage', '/cam/depth/compressedDepth'),
                REFUSED,
                'depth',
            ),
        ],
    ),
    'Videos': (
        'PyAV',
        [
            Case('MP4, MOV, H.264 and others', 'phones, cameras', video('walk.mp4'), count=12),
            Case('the same, turned', 'phones', phone, count=12),
            Case(
                'Matroska, uneven times',
                'screen recorders',
                video('walk.mkv', times=[0, 40, 80, 120, 1000, 1200, 1400, 1401, 2000, 2500, 2501, 4000]),
                count=12,
            ),
            Case('WebM', 'browsers', video('walk.webm', 'libvpx'), count=12),
            Case('AVI, Motion JPEG', 'webcams', video('walk.avi', 'mjpeg'), count=12),
            Case(
                'H.264, H.265, MJPEG without a container',
                'raspivid',
                video('walk.h264', form='h264'),
                NOTED,
                'the video has no times',
                12,
            ),
            Case('damaged packets', 'a bad card', test_videos.damaged, COUNTED, 'is damaged', None),
            Case(
                'MP4 without its index', 'an empty battery', battery_empty, REFUSED, 'not a video that FFmpeg can read'
            ),
            Case('sound alone', '', test_videos.song, REFUSED, 'there is no video in it'),
        ],
    ),
}


def table() -> str:
    """As Markdown, a chapter for each kind of input."""
    out = io.StringIO()
    for chapter, (library, cases) in CASES.items():
        out.write(f'### {chapter}\n\nRead with {library}.\n\n| what | from | becomes |\n|---|---|---|\n')
        for case in cases:
            out.write(f'| {case.what} | {case.program} | {case.result} |\n')
        out.write('\n')
    return out.getvalue()


if __name__ == '__main__':
    print(table(), end='')

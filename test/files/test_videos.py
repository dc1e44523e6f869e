"""Videos of cameras, phones and screens: every frame, its time, the right way up; what is damaged costs itself."""

from fractions import Fraction

import av
import cv2
import numpy as np
import pytest

from vggt_ros.files.errors import SequenceError
from vggt_ros.files.opening import open_sequence

WIDTH, HEIGHT, COUNT = 64, 48, 12


def picture(index):
    """RGB; a codec leaves it readable: dark left above, and brighter with every index."""
    rgb = np.full((HEIGHT, WIDTH, 3), 100 + 10 * index, np.uint8)
    rgb[: HEIGHT // 3, : WIDTH // 3] = 0
    return rgb


def record(path, codec='libx264', times=None, gop=12, options=None, form=None):
    """times: of each frame in milliseconds, 100 apart without. AVI has a rate and no times."""
    unit = 100 if path.suffix == '.avi' else 1
    with av.open(str(path), 'w', format=form) as container:
        stream = container.add_stream(codec, rate=10, options=options or {})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, 'yuvj420p' if codec == 'mjpeg' else 'yuv420p'
        stream.time_base = stream.codec_context.time_base = Fraction(unit, 1000)
        stream.codec_context.gop_size = gop
        for index in range(COUNT):
            frame = av.VideoFrame.from_ndarray(picture(index), format='rgb24')
            frame.pts = (times or range(0, 100 * COUNT, 100))[index] // unit
            frame.time_base = Fraction(unit, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def found(path, **options):
    """(sequence, indices told by the pixels, stamps in milliseconds)."""
    sequence = open_sequence(path, **options)
    items = list(sequence)
    shown = [int(np.median(item.image.to_rgb()[HEIGHT // 2 :])) for item in items]
    return sequence, [round((x - 100) / 10) for x in shown], [round(item.stamp / 1e6, 3) for item in items]


@pytest.mark.parametrize(
    ('name', 'codec'),
    [
        ('walk.mp4', 'libx264'),
        ('walk.mkv', 'libx264'),
        ('walk.mov', 'mjpeg'),
        ('walk.avi', 'mjpeg'),
        ('walk.webm', 'libvpx'),
    ],
)
def test_every_frame_comes_with_its_time(name, codec, tmp_path):
    sequence, indices, stamps = found(record(tmp_path / name, codec))
    assert indices == list(range(COUNT))
    assert stamps == [100 * (i + 1) for i in range(COUNT)]
    assert (sequence.lost, sequence.notes) == (0, ())
    assert found(tmp_path / name, fps=50, stride=5)[1:] == ([0, 5, 10], [20, 120, 220])


def test_frames_that_come_unevenly_keep_their_times(tmp_path):
    times = [0, 40, 80, 120, 1000, 1200, 1400, 1401, 2000, 2500, 2501, 4000]
    _, indices, stamps = found(record(tmp_path / 'walk.mkv', times=times))
    assert indices == list(range(COUNT))
    assert np.diff(stamps).tolist() == np.diff(times).tolist()


@pytest.mark.parametrize('name', ['2024-05-01T12:30:00.mp4', 'walk_%03d.mp4', 'http:walk.mp4', 'ü #1?.mp4'])
def test_names_that_mean_something_elsewhere(name, tmp_path, monkeypatch):
    record(tmp_path / 'walk.mp4').rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert found(name)[1] == list(range(COUNT))


def turn(path):
    """Write a quarter turn into the track's matrix, as a phone does (ISO 14496-12, tkhd)."""
    data = bytearray(path.read_bytes())
    at = data.index(b'tkhd') + 4 + 4 + 5 * 4 + 8 + 8
    one = 1 << 16
    values = (0, one, 0, -one, 0, 0, 0, 0, 1 << 30)
    data[at : at + 36] = b''.join(value.to_bytes(4, 'big', signed=True) for value in values)
    path.write_bytes(data)


def test_a_video_of_a_phone_stands_upright(tmp_path):
    turn(record(tmp_path / 'walk.mp4'))
    rgb = next(iter(open_sequence(tmp_path / 'walk.mp4'))).image.to_rgb()
    assert rgb.shape == (WIDTH, HEIGHT, 3)
    capture = cv2.VideoCapture(str(tmp_path / 'walk.mp4'))  # which turns as the file says, too
    expected = capture.read()[1][..., ::-1]
    assert np.abs(rgb.astype(int) - expected).max() < 12


def damaged(folder):
    """A video of groups of three frames, of which one is wrong."""
    path = record(folder / 'walk.mp4', gop=3, options={'x264-params': 'bframes=0:scenecut=0'})
    with av.open(str(path)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    data = bytearray(path.read_bytes())
    position, size = packets[6]
    data[position + 4 : position + size] = b'\xff' * (size - 4)
    path.write_bytes(data)
    return path


def test_a_damaged_packet_costs_the_frames_that_need_it(tmp_path):
    sequence, indices, stamps = found(damaged(tmp_path))
    assert set(indices) >= {0, 1, 2, 3, 4, 5, 9, 10, 11}
    assert len(indices) + sequence.lost == COUNT
    assert sequence.lost >= 1
    assert 'damaged' in sequence.damaged[0]
    assert stamps[-1] == 100 * COUNT, 'those behind keep their times'


def test_a_video_that_is_cut_off_is_told(tmp_path):
    path = record(tmp_path / 'walk.mp4', 'mjpeg', options={}, form='mov')
    with av.open(str(path)) as container:
        position = [packet.pos for packet in container.demux(video=0) if packet.size][5]
    data = path.read_bytes()
    # As if the card was full: the index at the front, the pictures cut off.
    moov = data.index(b'moov') - 4
    path.write_bytes(data[:position] + b'\0' * (moov - position) + data[moov:])
    sequence, indices, _ = found(path)
    assert indices == list(range(5))
    assert sequence.lost == COUNT - 5
    assert sequence.damaged


def test_raw_streams_have_no_times_and_that_is_said(tmp_path):
    sequence, indices, _ = found(record(tmp_path / 'walk.h264', form='h264'))
    assert indices == list(range(COUNT))
    assert 'the video has no times' in sequence.notes[0]
    assert found(tmp_path / 'walk.h264', fps=20)[2][:2] == [50, 100]


@pytest.mark.parametrize('content', [b'', b'no video', b'\0' * 5000])
def test_what_is_no_video_is_refused(content, tmp_path):
    (tmp_path / 'walk.mp4').write_bytes(content)
    with pytest.raises(SequenceError, match=r'walk\.mp4: not a video that FFmpeg can read'):
        open_sequence(tmp_path / 'walk.mp4')


def song(folder):
    """A container without pictures."""
    path = folder / 'song.mp4'
    with av.open(str(path), 'w') as container:
        stream = container.add_stream('aac', rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format='fltp', layout='mono')
        frame.sample_rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def test_sound_alone_is_refused(tmp_path):
    with pytest.raises(SequenceError, match='there is no video in it'):
        open_sequence(song(tmp_path))

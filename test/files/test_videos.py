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


def record(path, codec='libx264', times=None, gop=12, options=None, form=None, movflags=''):
    """times: of each frame in milliseconds, 100 apart without. AVI has a rate and no times."""
    unit = 100 if path.suffix == '.avi' else 1
    with av.open(str(path), 'w', format=form, options={'movflags': movflags} if movflags else {}) as container:
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


GROUP = {'x264-params': 'bframes=0:scenecut=0', 'crf': '12'}
GROUP_WITH_B = {'x264-params': 'bframes=3:b-adapt=0:scenecut=0', 'crf': '12'}


def positions(path):
    """(first byte, number of bytes) of each packet, in the order of decoding."""
    with av.open(str(path)) as container:
        return [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]


def spoil(path, number):
    """Overwrite the second half of a packet."""
    position, size = positions(path)[number]
    data = bytearray(path.read_bytes())
    begin = position + size // 2
    data[begin : position + size] = b'\xff' * (position + size - begin)
    path.write_bytes(data)


@pytest.mark.parametrize('options', [GROUP, GROUP_WITH_B])
@pytest.mark.parametrize('name', ['walk.mp4', 'walk.mkv'])
@pytest.mark.parametrize('number', [0, 1, 2, 4])
def test_frames_that_lean_on_a_damaged_one_are_not_used(name, options, number, tmp_path):
    path = record(tmp_path / name, gop=6, options=options)
    whole = {item.stamp: item.image.to_rgb().astype(int) for item in open_sequence(path)}
    spoil(path, 6 + number)
    sequence = open_sequence(path)
    items = list(sequence)
    assert all(np.abs(item.image.to_rgb() - whole[item.stamp]).max() < 3 for item in items)
    assert len(items) + sequence.lost == COUNT
    assert len(sequence.damaged) == 1
    assert sequence.lost > 0
    assert len(items) >= 6, 'the group before is whole'


def test_pictures_behind_the_next_key_frame_are_used(tmp_path):
    path = record(tmp_path / 'walk.mkv', gop=4, options=GROUP)
    spoil(path, 5)
    sequence, indices, _ = found(path)
    assert indices == [0, 1, 2, 3, 4, 8, 9, 10, 11]
    assert sequence.lost == 3


@pytest.mark.parametrize(('name', 'codec'), [('walk.mkv', 'libx264'), ('walk.webm', 'libvpx'), ('walk.flv', 'flv1')])
def test_a_container_with_a_duration_that_is_cut_off_is_told(name, codec, tmp_path):
    path = record(tmp_path / name, codec, gop=3)
    path.write_bytes(path.read_bytes()[: positions(path)[6][0]])
    sequence, indices, _ = found(path)
    assert indices == list(range(len(indices)))
    assert 5 <= len(indices) <= 6
    assert abs(len(indices) + sequence.lost - COUNT) <= 1
    assert 's of 1.20 s' in sequence.damaged[-1]


def shifted(source, path, milliseconds):
    """The packets of a video, earlier by so much; with MP4 what is before zero is left out by an edit list."""
    with av.open(str(source)) as old, av.open(str(path), 'w') as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(video=0):
            if packet.dts is None:
                continue
            packet.pts -= int(Fraction(milliseconds, 1000) / packet.time_base)
            packet.dts -= int(Fraction(milliseconds, 1000) / packet.time_base)
            packet.stream = stream
            new.mux(packet)
    return path


def test_a_fragmented_video_that_is_cut_off_within_a_fragment_is_told(tmp_path):
    path = tmp_path / 'walk.mp4'
    record(path, gop=6, options=GROUP, movflags='frag_keyframe+empty_moov')
    position, size = positions(path)[9]
    path.write_bytes(path.read_bytes()[: position + size // 2])
    sequence, indices, _ = found(path)
    assert indices == list(range(9))
    assert sequence.lost == 3


@pytest.mark.parametrize('suffix', ['.mp4', '.mov'])
@pytest.mark.parametrize('gop', [3, 12])
def test_a_video_that_was_trimmed_is_whole(suffix, gop, tmp_path):
    source = record(tmp_path / f'long{suffix}', gop=gop, options=GROUP)
    sequence, indices, stamps = found(shifted(source, tmp_path / f'walk{suffix}', 500))
    assert indices == [5, 6, 7, 8, 9, 10, 11]
    assert stamps[0] == 100
    assert (sequence.lost, sequence.damaged) == (0, [])
    assert len(sequence) == 7


def test_an_avi_with_dropped_frames_is_whole(tmp_path):
    times = [100 * tick for tick in (0, 1, 2, 6, 7, 8, 12, 13, 14, 20, 21, 30)]
    sequence, indices, stamps = found(record(tmp_path / 'walk.avi', 'mjpeg', times))
    assert indices == list(range(COUNT))
    assert np.diff(stamps).tolist() == np.diff(times).tolist()
    assert (sequence.lost, sequence.damaged) == (0, [])
    assert len(sequence) == COUNT


def test_an_avi_that_is_cut_off_is_told(tmp_path):
    path = record(tmp_path / 'walk.avi', 'mjpeg')
    path.write_bytes(path.read_bytes()[:-6000])
    sequence, indices, _ = found(path)
    assert len(indices) + sequence.lost == COUNT
    assert 'of 1.20 s' in sequence.damaged[-1]


def test_a_video_whose_sound_goes_on_is_whole(tmp_path):
    with av.open(str(tmp_path / 'walk.mkv'), 'w') as container:
        stream, sound = container.add_stream('libx264', rate=10), container.add_stream('aac', rate=44100)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, 'yuv420p'
        for index in range(COUNT):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(index), format='rgb24')))
        container.mux(stream.encode())
        for index in range(120):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format='fltp', layout='mono')
            frame.sample_rate, frame.pts = 44100, 1024 * index
            container.mux(sound.encode(frame))
        container.mux(sound.encode())
    sequence, indices, _ = found(tmp_path / 'walk.mkv')
    assert indices == list(range(COUNT))
    assert (sequence.lost, sequence.damaged) == (0, [])


@pytest.mark.parametrize('name', ['notes.txt', 'walk.nfo', 'poses.tum'])
def test_a_text_is_no_video(name, tmp_path):
    (tmp_path / name).write_text('1 0 0 0 0 0 0 1\n' * 20)
    with pytest.raises(SequenceError, match='not a video that FFmpeg can read'):
        open_sequence(tmp_path / name)


@pytest.mark.parametrize('suffix', ['.png', '.jpg', '.bmp', '.webp'])
def test_a_single_picture_under_another_name_is_no_video(suffix, tmp_path):
    (tmp_path / 'walk.data').write_bytes(cv2.imencode(suffix, picture(0))[1].tobytes())
    with pytest.raises(SequenceError, match='not a video that FFmpeg can read'):
        open_sequence(tmp_path / 'walk.data')


def test_pictures_after_one_another_are_a_video(tmp_path):
    data = [cv2.imencode('.png', picture(index)[..., ::-1])[1].tobytes() for index in range(COUNT)]
    (tmp_path / 'walk.data').write_bytes(b''.join(data))
    sequence, indices, _ = found(tmp_path / 'walk.data')
    assert indices == list(range(COUNT))
    assert 'the video has no times' in sequence.notes[0]


def test_frames_of_another_size_than_the_first_are_counted(tmp_path):
    joined = b''
    for width in (WIDTH, 2 * WIDTH):
        with av.open(str(tmp_path / 'part.ts'), 'w') as container:
            stream = container.add_stream('libx264', rate=10)
            stream.width, stream.height, stream.pix_fmt = width, HEIGHT, 'yuv420p'
            for index in range(3):
                rgb = np.full((HEIGHT, width, 3), 100 + 10 * index, np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(rgb, format='rgb24')))
            container.mux(stream.encode())
        joined += (tmp_path / 'part.ts').read_bytes()
    (tmp_path / 'walk.ts').write_bytes(joined)
    sequence = open_sequence(tmp_path / 'walk.ts')
    assert [(item.index, item.image.width) for item in sequence] == [(0, WIDTH), (1, WIDTH), (2, WIDTH)]
    assert sequence.lost == 3
    assert 'frame 3: 128x48 pixels, the first has 64x48' in sequence.damaged[0]


def test_a_codec_that_nobody_knows_is_refused(tmp_path):
    path = record(tmp_path / 'walk.mkv')
    data = path.read_bytes()
    assert data.count(b'V_MPEG4/ISO/AVC') == 1
    path.write_bytes(data.replace(b'V_MPEG4/ISO/AVC', b'V_QUANTUM/ISO/X'))
    with pytest.raises(SequenceError, match=r'walk\.mkv: not a video that FFmpeg can read'):
        open_sequence(path)

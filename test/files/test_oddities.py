"""What a user with a disk full of recordings met: each is read, read and said, or refused in a line."""

import shutil

import cv2
import numpy as np
import pytest
import test_bags
import test_layouts
from test_layouts import COUNT, HEIGHT, WIDTH, K, picture, write

from bags import START, BagWriter
from vggt_ros.files.errors import SequenceError
from vggt_ros.files.opening import open_sequence
from vggt_ros.files.truth import KnownPictures


def pictures(folder, names, suffix='png'):
    for i, name in enumerate(names):
        write(folder / f'{name}.{suffix}', picture(i))


def order(path):
    """Indices told by the pixels, in the order in which pictures come."""
    return [round((int(item.image.to_rgb()[0, 0, 0]) - 10) / 20) for item in open_sequence(path)]


@pytest.mark.parametrize('depth', [1, 2])
def test_a_dataset_below_the_folder_that_is_given(depth, tmp_path):
    root = tmp_path / '/'.join(['unpacked', 'again'][:depth])
    root.mkdir(parents=True)
    test_layouts.tum(root)
    sequence = open_sequence(tmp_path)
    assert (sequence.kind, len(sequence.trajectory)) == ('TUM RGB-D', COUNT)
    assert sequence.read_depth(0) is not None
    assert any('is taken' in note for note in sequence.notes)
    shutil.copytree(root, root.parent / 'other')
    with pytest.raises(SequenceError, match=r'2 datasets, give one of them: .*TUM RGB-D'):
        open_sequence(root.parent)


def test_a_jpeg_may_have_a_film_behind_it(tmp_path):
    """As phones write live photographs; the film holds whatever bytes there are."""
    rng = np.random.default_rng(1)
    for i in range(4):
        data = cv2.imencode('.jpg', picture(i)[..., ::-1])[1].tobytes()
        (tmp_path / f'{i}.jpg').write_bytes(data + rng.integers(0, 256, 200_000).astype(np.uint8).tobytes())
    assert order(tmp_path) == [0, 1, 2, 3]


def test_a_suffix_may_be_wrong(tmp_path):
    for i, suffix in enumerate(('.png', '.webp', '.jpg', '.png')):
        (tmp_path / f'{i}.jpg').write_bytes(cv2.imencode(suffix, picture(i)[..., ::-1])[1].tobytes())
    assert order(tmp_path) == [0, 1, 2, 3]


@pytest.mark.parametrize('keep', [0.3, 0.6, 0.95])
@pytest.mark.parametrize('progressive', [0, 1])
def test_a_jpeg_that_is_cut_off_is_not_used(keep, progressive, tmp_path):
    rng = np.random.default_rng(2)
    for i in range(3):
        noise = rng.integers(0, 256, (60, 80, 3)).astype(np.uint8)
        data = cv2.imencode('.jpg', noise, [cv2.IMWRITE_JPEG_PROGRESSIVE, progressive])[1].tobytes()
        (tmp_path / f'{i}.jpg').write_bytes(data[: round(len(data) * keep)] if i == 1 else data)
    sequence = open_sequence(tmp_path)
    assert [item.index for item in sequence] == [0, 2]
    assert 'cut off' in sequence.damaged[0]


def test_depth_among_pictures_with_a_number_behind_the_word(tmp_path):
    pictures(tmp_path, [f'frame{i:06d}' for i in range(4)])
    pictures(tmp_path, [f'depth{i:06d}' for i in range(4)])
    assert len(open_sequence(tmp_path)) == 4


def test_two_kinds_of_every_name_are_refused(tmp_path):
    pictures(tmp_path, range(4), 'jpg')
    pictures(tmp_path, range(4), 'png')
    with pytest.raises(SequenceError, match=r'\*.jpg and \*.png have the same names'):
        open_sequence(tmp_path)


def test_two_cameras_in_one_folder_are_refused(tmp_path):
    pictures(tmp_path, [f'{side}{i:02d}' for i in range(2) for side in ('left', 'right')])
    with pytest.raises(SequenceError, match=r'several cameras \(left\*, right\*\)'):
        open_sequence(tmp_path)


@pytest.mark.parametrize(
    ('names', 'stamps'),
    [
        ([f'out_Color_1525966593{800 + 33 * i}.0200' for i in range(3)], [33_000_000 * i for i in range(3)]),
        ([f'cam_Color_{12345.25 + 33 * i:.4f}' for i in range(3)], None),  # milliseconds since it was plugged in
        (['cam1.7', 'cam1.8', 'cam1.9', 'cam1.10'], None),
        (['1.7', '1.8', '1.9', '1.10', '1.11', '1.1'], None),
        (['shot01.0001', 'shot01.0002', 'shot01.0003'], None),
        (['2024050112005950', '2024050112005983', '2024050112010016'], None),
        (['-0.5', '-0.4', '-0.3'], None),
    ],
)
def test_names_that_look_like_times(names, stamps, tmp_path):
    pictures(tmp_path, names)
    sequence = open_sequence(tmp_path)
    if stamps is None:
        assert any('10 pictures per second' in note for note in sequence.notes)
    else:
        found = np.array([item.stamp for item in sequence])
        np.testing.assert_array_equal(np.diff(found), np.diff(stamps))
        assert found[0] // 10**9 == 1525966593


def test_numbers_in_names_count_piece_by_piece(tmp_path):
    pictures(tmp_path, ['cam1.7', 'cam1.8', 'cam1.9', 'cam1.10'])
    assert order(tmp_path) == [0, 1, 2, 3]


def test_seconds_and_nanoseconds_in_two_columns(tmp_path):
    pictures(tmp_path, range(2))
    (tmp_path / 'timestamps.txt').write_text('0.png 1700000001 100000000\n1.png 1700000001 000000200\n')
    assert [item.stamp for item in open_sequence(tmp_path)] == [1_700_000_001_000_000_200, 1_700_000_001_100_000_000]


@pytest.mark.parametrize('scale', ['1000', '0', '-0.001', '.nan', '.inf'])
def test_a_depth_scale_that_cannot_be_one(scale, tmp_path):
    pictures(tmp_path, range(3))
    text = f'image_width: {WIDTH}\nimage_height: {HEIGHT}\nfx: 30\nfy: 30\ncx: 15.5\ncy: 11.5\ndepth_scale: {scale}\n'
    (tmp_path / 'intrinsics.yaml').write_text(text)
    with pytest.raises(SequenceError, match='metres per unit of depth are wanted'):
        open_sequence(tmp_path)


@pytest.mark.parametrize('entry', ['fx: .nan', 'fx: -30', 'fx: 0', 'image_width: .inf', 'cx: 99999'])
def test_a_camera_that_is_none(entry, tmp_path):
    pictures(tmp_path, range(3))
    fields = {'image_width': WIDTH, 'image_height': HEIGHT, 'fx': 30, 'fy': 30, 'cx': 15.5, 'cy': 11.5}
    name, _, value = entry.partition(': ')
    text = ''.join(f'{key}: {fields[key] if key != name else value}\n' for key in fields)
    (tmp_path / 'intrinsics.yaml').write_text(text)
    with pytest.raises(SequenceError, match=r'intrinsics\.yaml: ') as refusal:
        open_sequence(tmp_path)
    assert '\n' not in str(refusal.value)


def test_a_calibration_that_is_not_read_is_said(tmp_path):
    pictures(tmp_path, range(3))
    (tmp_path / 'intrinsics.json').write_text('{}')
    (tmp_path / 'K.txt').write_text('')
    notes = open_sequence(tmp_path).notes
    assert any('may be a calibration: K.txt, intrinsics.json' in note for note in notes)
    assert any('the camera is uncalibrated' in note for note in notes)
    (tmp_path / 'calibration.yml').write_text('image_width: 32\nimage_height: 24\nfx: 30\nfy: 30\ncx: 15.5\ncy: 11.5\n')
    sequence = open_sequence(tmp_path)
    assert next(iter(sequence)).calibration.k[0] == 30
    assert not any('calibration' in note for note in sequence.notes)


def test_one_damaged_depth_picture_costs_itself(tmp_path):
    test_layouts.tum(tmp_path)
    files = sorted((tmp_path / 'depth').iterdir())
    files[1].write_bytes(b'')
    write(files[2], picture(2))  # 8 bits
    sequence = open_sequence(tmp_path)
    known = KnownPictures(sequence)
    assert [one.item.index for one in known] == [0, 3]
    assert any(files[1].name in note for note in known.notes)
    assert any('2 pictures without pose or depth' in note for note in known.notes)


def test_metadata_of_somebody_else_makes_no_bag(tmp_path):
    pictures(tmp_path, range(3))
    (tmp_path / 'metadata.yaml').write_text('camera: eye\n')
    assert len(open_sequence(tmp_path)) == 3


def test_a_bag_beside_its_packed_self_is_read_once(tmp_path):
    path = test_bags.walk(tmp_path / 'walk', 'sqlite3', 4)
    shutil.copy(path / 'walk.db3', path / 'walk.db3.zstd')
    (path / 'metadata.yaml').unlink()
    assert len(list(open_sequence(path))) == 4


def test_what_the_metadata_of_a_bag_leaves_out_is_said(tmp_path):
    path = test_bags.walk(tmp_path / 'walk', 'sqlite3', 4)
    shutil.copy(path / 'walk.db3', path / 'second.db3')
    sequence = open_sequence(path)
    assert len(sequence) == 4
    assert any('does not name second.db3' in note for note in sequence.notes)


@pytest.mark.parametrize('kind', [np.float32, np.float64, np.int16, np.int32])
def test_grey_tiff_of_any_kind(kind, tmp_path):
    for i in range(3):
        values = picture(i)[..., 1] * (1 if np.issubdtype(kind, np.integer) else 1 / picture(i)[..., 1].max())
        write(tmp_path / f'{i}.tiff', values.astype(kind))
    shown = [item.image.to_rgb() for item in open_sequence(tmp_path)]
    assert all(image.max() > 200 for image in shown)
    np.testing.assert_array_equal(shown[0][..., 0], shown[0][..., 2])


def test_a_link_that_leads_nowhere_is_counted(tmp_path):
    pictures(tmp_path, range(3))
    (tmp_path / '3.png').symlink_to(tmp_path / 'gone.png')
    sequence = open_sequence(tmp_path)
    assert len(list(sequence)) == 3
    assert sequence.lost == 1


def test_a_line_that_is_there_twice_is_said(tmp_path):
    test_layouts.tum(tmp_path)
    text = (tmp_path / 'rgb.txt').read_text()
    (tmp_path / 'rgb.txt').write_text(text + text.splitlines()[2] + '\n')
    sequence = open_sequence(tmp_path)
    assert len(list(sequence)) == COUNT
    assert any('1 pictures have the stamp of another' in note for note in sequence.notes)


def test_another_folder_than_the_cameras_data_is_read_as_it_is(tmp_path):
    test_layouts.euroc(tmp_path)
    pictures(tmp_path / 'mav0' / 'cam0' / 'data_undistorted', [3, 2])
    sequence = open_sequence(tmp_path / 'mav0' / 'cam0' / 'data_undistorted')
    assert (sequence.kind, len(sequence)) == ('folder of pictures', 2)
    project = tmp_path / 'project'
    pictures(project / 'images', range(3))
    (project / 'data').mkdir()
    (project / 'data.csv').write_text('id,label\n1,cat\n')
    assert len(open_sequence(project)) == 3


def test_images_that_are_rectified_have_the_camera_of_p(tmp_path):
    """image_proc publishes one camera_info for both."""
    with BagWriter(tmp_path / 'walk', 'mcap') as bag:
        for i in range(3):
            time = START + i * 10**8
            roi = bag.store.types['sensor_msgs/msg/RegionOfInterest'](
                x_offset=0, y_offset=0, height=0, width=0, do_rectify=False
            )
            matrices = {
                'd': np.array([-0.3, 0.1, 0, 0, 0]),
                'k': np.array([30.0, 0, 16, 0, 30, 12, 0, 0, 1]),
                'r': np.eye(3).ravel(),
                'p': np.array([25.0, 0, 15, 0, 0, 26, 11, 0, 0, 0, 1, 0]),
            }
            fields = {'height': 24, 'width': 32, 'distortion_model': 'plumb_bob', 'binning_x': 0, 'binning_y': 0}
            bag.write('/cam/camera_info', 'CameraInfo', time, roi=roi, **fields, **matrices)
            bag.image('/cam/image_rect', time, i)
    sequence = open_sequence(tmp_path / 'walk')
    calibration = next(iter(sequence)).calibration
    assert not any(calibration.d)
    np.testing.assert_allclose(calibration.K, [[25, 0, 15], [0, 26, 11], [0, 0, 1]])
    assert any('rectified' in note for note in sequence.notes)


def test_kitti_that_is_not_rectified(tmp_path):
    path = test_layouts.raw_kitti(tmp_path)
    drive = next(x for x in tmp_path.rglob('*_sync') if x.is_dir())
    extract = drive.rename(drive.with_name(drive.name.replace('_sync', '_extract')))
    calibration = extract.parent / 'calib_cam_to_cam.txt'
    more = f'S_02: {WIDTH} {HEIGHT}\nK_02: {" ".join(str(x) for x in np.ravel(K))}\nD_02: -0.3 0.1 0 0 0\n'
    calibration.write_text(calibration.read_text() + more)
    sequence = open_sequence(extract)
    assert next(iter(sequence)).calibration.d == (-0.3, 0.1, 0, 0, 0)
    assert sequence.trajectory is None
    assert path is None or not path.exists()


@pytest.mark.parametrize('make', [test_layouts.tum, test_layouts.euroc])
def test_pictures_that_a_list_does_not_name_are_said(make, tmp_path):
    make(tmp_path)
    folder = tmp_path / ('rgb' if make is test_layouts.tum else 'mav0/cam0/data')
    write(folder / '1.png', picture(0))
    assert any('1 pictures in' in note and 'not in the list' in note for note in open_sequence(tmp_path).notes)


def test_depth_under_other_names_is_said(tmp_path):
    pictures(tmp_path / 'images', range(3))
    pictures(tmp_path / 'depth', ['a', 'b', 'c'])
    assert any('depth/ is left out' in note for note in open_sequence(tmp_path).notes)


def test_parts_of_a_bag_are_named(tmp_path):
    for i in range(2):
        test_bags.walk(tmp_path / f'walk_{i}.bag', 'ros1', 2, first=2 * i)
    sequence = open_sequence(tmp_path)
    assert len(list(sequence)) == 4
    assert any('walk_0.bag, walk_1.bag' in note for note in sequence.notes)


def test_a_schema_that_is_no_text_is_refused(tmp_path):
    """sqlite3 fails to put its own complaint into words."""
    path = test_bags.walk(tmp_path / 'walk', 'sqlite3', 3)
    data = (path / 'walk.db3').read_bytes()
    assert b'timestamp_idx' in data
    data = data.replace(b'timestamp_idx', b'ti\xc1estamp_idx').replace(b'ON messages', b'ON messagez')
    (path / 'walk.db3').write_bytes(data)
    with pytest.raises(SequenceError, match=r'walk\.db3: not a readable bag') as refusal:
        list(open_sequence(path))
    assert '\n' not in str(refusal.value)


def test_a_dataset_is_taken_before_the_bag_beside_it_and_the_bag_before_mere_pictures(tmp_path):
    dataset, mere = tmp_path / 'dataset', tmp_path / 'mere'
    for folder in (dataset, mere):
        folder.mkdir()
        test_bags.walk(folder / 'walk.bag', 'ros1')
    test_layouts.tum(dataset)
    sequence = open_sequence(dataset)
    assert sequence.kind == 'TUM RGB-D'
    assert 'not read, give it for that: walk.bag' in sequence.notes
    pictures(mere, 'ab')
    sequence = open_sequence(mere)
    assert sequence.kind == 'bag'
    assert '2 pictures beside the bag are not read: a.png and the like' in sequence.notes


def stamped(path, stamps):
    with BagWriter(path, 'mcap') as bag:
        for i, stamp in enumerate(stamps):
            bag.image('/cam/image_raw', START + i * 10**8, i, stamp=stamp)
    return open_sequence(path)


def test_stamps_that_stand_still_give_way_to_times_of_recording(tmp_path):
    sequence = stamped(tmp_path / 'walk', [START] * 5)
    assert 'the stamps of the images stand still: times of recording are taken' in sequence.notes
    assert [item.stamp for item in sequence] == [START + i * 10**8 for i in range(5)]


def test_stamps_of_a_bag_that_are_no_times_in_order_are_said(tmp_path):
    back = stamped(tmp_path / 'back', [START + x * 10**8 for x in (0, 2, 1, 3, 3)])
    assert 'stamps do not increase, 2 times in the first 5 images' in back.notes
    slow = stamped(tmp_path / 'slow', [START + i * 10**11 for i in range(5)])
    assert 'pictures are 100 s apart: are their stamps right?' in slow.notes


def test_times_in_milliseconds_are_said(tmp_path):
    pictures(tmp_path, '012345')
    (tmp_path / 'times.txt').write_text('\n'.join(str(1000 + 100 * i) for i in range(6)))
    assert 'pictures are 100 s apart: are their stamps right?' in open_sequence(tmp_path).notes


def test_one_bright_picture_of_16_bits_among_dark_ones_is_found(tmp_path):
    for i in range(40):
        grey = np.full((HEIGHT, WIDTH), 4000 if i == 17 else 900, np.uint16)
        cv2.imwrite(str(tmp_path / f'{i}.png'), grey)
    assert '16-bit pictures with values to 4000: taken as 12 bits' in open_sequence(tmp_path).notes


LONG = 'x' * 300  # no file system has such a name


def test_lists_may_name_what_can_be_no_file(tmp_path):
    mere, dataset, bag = tmp_path / 'mere', tmp_path / 'dataset', tmp_path / 'bag'
    pictures(mere, 'abc')
    (mere / 'timestamps.txt').write_text(
        ''.join(f'{name} {i + 1}\n' for i, name in enumerate(['a.png', 'b.png', 'c.png', LONG]))
    )
    assert 'timestamps.txt names 1 pictures that are not there' in open_sequence(mere).notes
    dataset.mkdir()
    test_layouts.tum(dataset)
    lines = (dataset / 'depth.txt').read_text().splitlines()
    (dataset / 'depth.txt').write_text('\n'.join([*lines[:-1], f'{lines[-1].split()[0]} depth/{LONG}.png']))
    sequence = open_sequence(dataset)
    assert [sequence.read_depth(item.index) is not None for item in sequence].count(False) <= 1
    test_bags.walk(bag, 'mcap')
    metadata = (bag / 'metadata.yaml').read_text()
    (bag / 'metadata.yaml').write_text(metadata.replace(test_bags.storage(bag).name, f'{LONG}.mcap'))
    assert len(list(open_sequence(bag))) == 6

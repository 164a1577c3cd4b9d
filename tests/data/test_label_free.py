"""Pair readers cannot reach labels: not by import, not by opening a file, not by what the files hold."""

import ast
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest

import equilidar.data
from equilidar.data.faults import FaultySweepError
from equilidar.data.folder import FolderPairs
from equilidar.data.kitti_odometry import KittiOdometry
from equilidar.data.kitti_raw import KittiRaw, scan_files
from equilidar.data.kitti_raw_labelled import KittiRawLabelled
from equilidar.data.nuscenes import NuScenes
from equilidar.data.nuscenes_labelled import NuScenesLabelled
from equilidar.data.packed import PackedPairs
from equilidar.data.packing import Packing
from equilidar.data.recordings import RecordedPairs
from equilidar.data.waymo import Waymo
from equilidar.data.waymo_labelled import WaymoLabelled
from equilidar.structures import SweepPair
from tests.data.fake_data import cloud, write_bin
from tests.data.fake_kitti import CAR, write_calibration, write_labels, write_odometry, write_pose_rows
from tests.data.fake_nuscenes import ANNOTATIONS, VERSION, write_release
from tests.data.fake_waymo import poisoned, read_records, write_records, write_segments
from tests.data.test_pairs import camera_poses, write_raw

PACKAGE = Path(equilidar.data.__file__).parent
PAIR_READERS = (
    "kitti_odometry",
    "kitti_raw",
    "kitti360",
    "semantickitti",
    "folder",
    "nuscenes",
    "waymo",
    "argoverse2",
    "once",
    "own_log",
    "packed",
)
KNOWS_LABELS = {"Boxes3D", "LabelledSweep", "LabelledBatch", "ObjectAnnotations", "Detections", "labelled", "boxes"}
DRIVE = "2011_09_26_drive_0001_sync"

opened: list[str] | None = None


def record_open(event: str, arguments: tuple) -> None:
    if opened is not None and event in ("open", "os.listdir", "os.scandir"):
        opened.append(str(arguments[0]))


sys.addaudithook(record_open)


@pytest.fixture
def opened_paths() -> Iterator[list[str]]:
    global opened
    opened = []
    yield opened
    opened = None


def imports_of(module: str) -> Iterator[tuple[str, str]]:
    for node in ast.walk(ast.parse((PACKAGE / f"{module}.py").read_text())):
        if isinstance(node, ast.ImportFrom):
            yield from ((node.module or "", alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)


def test_pair_readers_import_nothing_that_knows_labels():
    todo, seen = list(PAIR_READERS), set()
    while todo:
        module = todo.pop()
        seen.add(module)
        for source, name in imports_of(module):
            assert name not in KNOWS_LABELS, f"{module} imports {name}"
            assert not source.startswith("equilidar.structures."), f"{module} imports {source}"
            assert not f"{source}.{name}".count("_annotations"), f"{module} imports {source}.{name}"
            inner = source.removeprefix("equilidar.data.") if source.startswith("equilidar.data.") else None
            if source == "equilidar.data":
                inner = name
            if inner and inner not in seen:
                todo.append(inner)
    assert {"recordings", "point_files", "poses", "ego_motion", "packed_file", "packed_index"} <= seen
    assert seen.isdisjoint({"kitti_labels", "kitti_frames", "kitti_object", "kitti_raw_labelled", "subsets"})
    assert not [
        name
        for name in seen
        if "labelled" in name or name in ("nuscenes_annotations", "waymo_labels", "track_ids", "argoverse2_flow")
    ]


def annotate(folder: Path, frames: list[str]) -> None:
    for frame in frames:
        write_labels(folder / "label_2" / f"{frame}.txt", [CAR])
        write_calibration(folder / "calib" / f"{frame}.txt")
        (folder / "labels").mkdir(exist_ok=True)
        (folder / "labels" / f"{frame}.label").write_bytes(b"\x01\x00\x00\x00" * 50)
    (folder / "tracklet_labels.xml").write_text("<tracklets/>")


def annotations(root: Path) -> list[Path]:
    tables = [path for name in ANNOTATIONS for path in root.rglob(f"{name}.json")]
    return [*root.rglob("label_2"), *root.rglob("labels"), *root.rglob("tracklet_labels.xml"), *tables]


def make_raw(root: Path) -> Callable[[], KittiRaw]:
    write_raw(root, DRIVE, [0, 1, 2])
    annotate(root / DRIVE[:10] / DRIVE, [f"{i:010d}" for i in range(3)])
    return lambda: KittiRaw(root, allow_validation_drives=True)


def make_odometry(root: Path) -> Callable[[], KittiOdometry]:
    write_odometry(root)
    annotate(root / "sequences" / "03", [f"{i:06d}" for i in range(3)])
    return lambda: KittiOdometry(root, allow_validation_drives=True)


def make_folder(root: Path) -> Callable[[], FolderPairs]:
    for i in range(3):
        write_bin(root / f"{i}.bin", cloud(i))
    write_pose_rows(root / "poses.txt", camera_poses(3))
    annotate(root, ["0", "1", "2"])
    return lambda: FolderPairs(root)


def make_nuscenes(root: Path) -> Callable[[], NuScenes]:
    write_release(root, ("scene-0061",), frames=4, every=3)
    return lambda: NuScenes(root, VERSION, "all", targets="key_frames", accumulate=2)


def stream(data: RecordedPairs | PackedPairs) -> list:
    pairs = [data[i] for i in range(len(data))]
    return [(p.key, p.target.timestamp, *(tensor.numpy().tobytes() for tensor in tensors(p))) for p in pairs]


def tensors(pair: SweepPair) -> tuple:
    source, target = pair.source, pair.target
    return source.xyz, source.features, target.xyz, target.features, pair.target_T_source


@pytest.mark.parametrize("make", [make_raw, make_odometry, make_folder, make_nuscenes])
def test_poisoned_and_removed_annotations_change_nothing(tmp_path: Path, make: Callable):
    build = make(tmp_path)
    assert annotations(tmp_path), "nothing to poison"
    expected = stream(build())

    for path in annotations(tmp_path):
        for file in [path] if path.is_file() else path.iterdir():
            file.write_bytes(b"\xff\x00poison" * 7)
    assert stream(build()) == expected

    for path in annotations(tmp_path):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert stream(build()) == expected


@pytest.mark.parametrize("make", [make_raw, make_odometry, make_nuscenes])
def test_annotations_are_not_even_opened(tmp_path: Path, make: Callable, opened_paths: list[str]):
    build = make(tmp_path)
    opened_paths.clear()
    stream(build())
    assert any("velodyne" in path or "LIDAR_TOP" in path for path in opened_paths), "the hook sees nothing"
    assert not [path for path in opened_paths if is_annotation(path.removeprefix(str(tmp_path)))]


def is_annotation(path: str) -> bool:
    return "label" in path or Path(path).stem in ANNOTATIONS


@pytest.mark.parametrize("make", [make_raw, make_odometry, make_folder, make_nuscenes])
def test_a_packed_store_has_no_column_for_labels_and_gives_the_same_pairs(tmp_path: Path, make: Callable):
    raw = make(tmp_path / "raw")()
    index = Packing(raw, tmp_path / "store", "", num_workers=1).run()
    assert index.plan["box_convention"] is None and index.plan["class_names"] is None
    for path in index.paths:
        columns = pa.ipc.open_file(path.read_bytes()).schema.names
        assert columns == ["key", "timestamp", "world_T_sensor", "xyz", "features"]
    assert stream(PackedPairs(tmp_path / "store")) == stream(raw)


def test_the_hook_sees_labels_being_read(tmp_path: Path, opened_paths: list[str]):
    """The test above could pass because the hook is blind: the labelled reader must trip it."""
    make_raw(tmp_path)
    opened_paths.clear()
    KittiRawLabelled(tmp_path)[0]
    assert [path for path in opened_paths if "label_2" in path]

    make_nuscenes(tmp_path / "nuscenes")
    opened_paths.clear()
    NuScenesLabelled(tmp_path / "nuscenes", VERSION, "all")
    read = {Path(path).stem for path in opened_paths if is_annotation(path)}
    assert {"sample_annotation", "instance", "category", "attribute"} <= read


def test_labels_beside_waymo_s_sweeps_are_not_even_parsed(tmp_path: Path):
    write_segments(tmp_path, ("100_000",))
    (path,) = tmp_path.rglob("*.tfrecord")
    expected = stream(Waymo(tmp_path))
    assert len(WaymoLabelled(tmp_path)[0].boxes)
    write_records(path, [poisoned(content) for content in read_records(path)])
    assert stream(Waymo(tmp_path)) == expected and len(expected) == 2
    with pytest.raises(FaultySweepError, match="no Waymo frame"):
        WaymoLabelled(tmp_path)[0]


def test_sample_pairs_without_and_with_annotations(samples: Path, tmp_path: Path):
    drives = sorted(p for p in samples.glob("kitti_raw/*_drive_*") if (p / "label_2").is_dir())
    if not drives:
        pytest.skip(f"no annotated drive under {samples}")
    drive, original, stripped = drives[0], tmp_path / "original", tmp_path / "stripped"
    for root in (original, stripped):
        for sweep in scan_files(drive)[:3]:
            copy = root / drive.name / "velodyne_points" / sweep.name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(sweep, copy)
    for folder in ("label_2", "calib"):
        shutil.copytree(drive / folder, original / drive.name / folder)

    def read() -> list:
        return [
            stream(KittiRaw(root, allow_validation_drives=True, cache_dir=tmp_path / "cache" / root.name))
            for root in (original, stripped)
        ]

    with_labels, without = read()
    assert with_labels == without and len(without) == 2
    for file in (original / drive.name / "label_2").iterdir():
        file.write_bytes(b"poison")
    assert read() == [without, without]

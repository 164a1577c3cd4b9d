"""Those frames of KITTI raw drives that are also detection frames, with their boxes. No pair reader imports this."""

from pathlib import Path

from equilidar.data.kitti_frames import KittiFrame, KittiFrames
from equilidar.data.kitti_labels import CLASS_NAMES
from equilidar.data.kitti_raw import find_drives, frame_times, scan_files
from equilidar.data.listing import last_number


class KittiRawLabelled(KittiFrames):
    """Frames of raw drives that have `label_2` and `calib` files under the raw frame's name.

    Raises:
        FileNotFoundError: a folder does not exist, or no frame has labels.
    """

    def __init__(
        self,
        root: str | Path,
        drives: list[str] | tuple[str, ...] | None = None,
        class_names: tuple[str, ...] | list[str] = CLASS_NAMES,
        camera_crop: bool = True,
    ) -> None:
        """List the frames.

        Args:
            root: folder of drives, or of days that hold drives.
            drives: names; None for all.
            class_names: classes that are kept, in the order of their label index.
            camera_crop: cut to the image of camera 2; see `KittiFrames`.
        """
        frames = [frame for drive in find_drives(Path(root), drives) for frame in _labelled(drive)]
        if not frames:
            raise FileNotFoundError(f"no drive under {root} has frames with both label_2 and calib files")
        super().__init__("kitti_raw", frames, tuple(class_names), camera_crop)


def _labelled(drive: Path) -> list[KittiFrame]:
    scans = scan_files(drive)
    times = frame_times(drive, [last_number(path.stem) or 0 for path in scans])
    frames = [
        KittiFrame(
            f"kitti_raw/{drive.name}/{scan.stem}",
            scan,
            drive / "calib" / f"{scan.stem}.txt",
            drive / "label_2" / f"{scan.stem}.txt",
            drive / "image_02" / "data" / f"{scan.stem}.png",
            time,
        )
        for scan, time in zip(scans, times, strict=True)
    ]
    return [f for f in frames if f.calibration.is_file() and f.labels is not None and f.labels.is_file()]

"""Ego motion where a recording has no poses: KISS-ICP, cached on disk."""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from equilidar.data.faults import FaultySweepError
from equilidar.data.file_cache import cache_path, kept_arrays
from equilidar.data.recordings import Frame, FrameReader

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class EgoMotion:
    """Estimates the poses of a run of sweeps by KISS-ICP (Vizzo et al., RA-L 2023).

    One thread: the result does not depend on the machine's load. Points have no time here, so sweeps are not deskewed.

    Attributes:
        cache_dir: where poses are kept, None for the user's cache folder. The key is a hash of the files' paths,
            sizes and times of change, and of all settings.
        max_range: metres.
        min_range: metres; excludes returns from the vehicle itself.
        voxel_size: of the local map, metres. KISS-ICP's own 1.0 lets the speed of a KITTI drive jitter by 5 cm a frame,
            0.5 by 2 to 3 cm, 0.3 pulls it towards zero (the rings on the ground seem to stand still).
    """

    cache_dir: str | Path | None = None
    max_range: float = 100.0
    min_range: float = 3.0
    voxel_size: float = 0.5

    def __call__(self, frames: Sequence[Frame], reader: FrameReader) -> NDArray[np.float64]:
        """Return (F, 4, 4) float64 poses in the first sweep's frame.

        A sweep that cannot be read gets the pose that constant velocity predicts; its pairs are skipped as faulty when
        they are read.

        Raises:
            ImportError: kiss-icp is not installed.
        """
        settings = {name: value for name, value in asdict(self).items() if name != "cache_dir"}
        files = dict.fromkeys(frame.path for frame in frames)
        what = [[frame.position for frame in frames], settings, reader.settings, _kiss_icp_version()]
        cache = cache_path(files, what, "ego_motion", self.cache_dir)

        def make() -> dict[str, NDArray]:
            _LOG.info("estimating ego motion of %d sweeps, %s ... (kept in %s)", len(frames), frames[0].key, cache)
            return {"world_T_sensor": self._estimate(frames, reader)}

        return kept_arrays(cache, make)["world_T_sensor"]

    def _estimate(self, frames: Sequence[Frame], reader: FrameReader) -> NDArray[np.float64]:
        from kiss_icp.config import KISSConfig
        from kiss_icp.kiss_icp import KissICP

        config = KISSConfig()
        config.data.deskew = False
        config.data.max_range, config.data.min_range = self.max_range, self.min_range
        config.mapping.voxel_size = self.voxel_size
        config.registration.max_num_threads = 1
        odometry = KissICP(config)
        poses = []
        for frame in frames:
            try:
                xyz = reader.read(frame)[0].numpy().astype(np.float64)
                odometry.register_frame(xyz, np.empty(0))
                pose = odometry.last_pose
            except FaultySweepError as error:
                _LOG.warning("ego motion: %s; its pose is predicted", error)
                pose = odometry.last_pose = odometry.last_pose @ odometry.last_delta
            poses.append(np.array(pose, dtype=np.float64))
        return np.stack(poses)


def _kiss_icp_version() -> str:
    try:
        import kiss_icp
    except ImportError as error:
        raise ImportError(
            "this recording has no poses, and estimating them needs kiss-icp: pip install 'equilidar[ego]'"
        ) from error
    return kiss_icp.__version__

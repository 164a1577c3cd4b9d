"""Which poses in a log are those of its sweeps."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from equilidar.data.log_index import LogIndex
from equilidar.data.transform_tree import Motion, TransformTree

# Of a tf chain, the frame in which motion is smooth; `map` jumps when a localization corrects itself (REP 105).
_SMOOTH_FRAME = "odom"


@dataclass(frozen=True)
class LogPoses:
    """Poses of a log's sweeps.

    Attributes:
        source: where they are from, in words.
        poses: (F, 4, 4) world_T_points: of the frame in which the points are given.
        known: (F,) whether there is one.
    """

    source: str
    poses: NDArray[np.float64]
    known: NDArray[np.bool_]


def find_poses(
    index: LogIndex,
    path: Path,
    wanted: str,
    fixed_frame: str | None,
    points_frame: str,
    pose_T_points: NDArray[np.float64] | None,
) -> LogPoses | None:
    """Find the poses of a log's sweeps.

    Args:
        index: of the log.
        path: of the log, for errors.
        wanted: "auto" (tf, else the one topic of odometry, else None), "tf", "estimate" (None), or a topic of
            nav_msgs/Odometry or geometry_msgs/PoseStamped.
        fixed_frame: that the poses are to be in; None for `odom` where tf knows it, else the topmost frame.
        points_frame: in which the points are given.
        pose_T_points: (4, 4) from that frame to the one that an odometry topic moves, where tf does not tell.

    Returns:
        The poses; None where they have to be estimated.

    Raises:
        ValueError: what is wanted is not in the log, or covers none of the sweeps.
    """
    if wanted == "estimate":
        return None
    tracks = sorted(index.tracks)
    if wanted in ("auto", "tf"):
        above = _frame_above(index.tree, points_frame, fixed_frame)
        if above is not None and index.tree.moves(points_frame, above):
            poses, known = index.tree.poses(points_frame, above, index.stamps)
            return _covering(LogPoses(f"tf {above} <- {points_frame}", poses, known), index, path)
        if wanted == "tf" or fixed_frame is not None:
            frames = ", ".join(index.tree.frames()) or "none"
            raise ValueError(
                f"{path}: tf does not tell how {points_frame} moves in {fixed_frame or 'another frame'}; its frames "
                f"are: {frames}; set dataset.poses to auto, estimate or a topic, and dataset.fixed_frame to null"
            )
        if not tracks:
            return None
        if len(tracks) > 1:
            raise ValueError(f"{path}: poses in {', '.join(tracks)}; set dataset.poses to one of them, or estimate")
        wanted = tracks[0]
    if wanted not in index.tracks:
        raise ValueError(
            f"{path}: no poses of topic {wanted}; set dataset.poses to auto, tf, estimate or one of: "
            f"{', '.join(tracks) or 'none'}"
        )
    child, motion = index.tracks[wanted]
    return _covering(_track_poses(index, path, wanted, child, motion, points_frame, pose_T_points), index, path)


def _frame_above(tree: TransformTree, frame: str, fixed_frame: str | None) -> str | None:
    above = list(tree.parents(frame))
    if fixed_frame is not None:
        return fixed_frame if fixed_frame in above else None
    return _SMOOTH_FRAME if _SMOOTH_FRAME in above else (above[-1] if above else None)


def _track_poses(
    index: LogIndex,
    path: Path,
    topic: str,
    child: str,
    motion: Motion,
    points_frame: str,
    pose_T_points: NDArray[np.float64] | None,
) -> LogPoses:
    if pose_T_points is None:
        # A pose that does not say whose it is can only be the sensor's.
        pose_T_points = np.eye(4) if child in ("", points_frame) else index.tree.static(points_frame, child)
    if pose_T_points is None:
        raise ValueError(
            f"{path}: {topic} moves {child}, and no fixed transform leads from the points' frame {points_frame} to it; "
            "set dataset.pose_T_points to x, y, z, qx, qy, qz, qw, or dataset.poses to estimate"
        )
    poses, known = motion.at(index.stamps)
    return LogPoses(f"topic {topic}", poses @ pose_T_points, known)


def _covering(found: LogPoses, index: LogIndex, path: Path) -> LogPoses:
    if len(found.known) and not found.known.any():
        raise ValueError(
            f"{path}: the poses of {found.source} cover none of the {len(index.stamps)} sweeps "
            f"({index.stamps[0] * 1e-9:.3f} to {index.stamps[-1] * 1e-9:.3f} s); set dataset.poses to estimate"
        )
    return found

"""KITTI-shaped folders that tests write for themselves."""

from pathlib import Path

import numpy as np

from tests.data.fake_data import cloud, write_bin

# Like real ones: velodyne x forward, y left, z up -> camera x right, y down, z forward, a little turned.
VELO_TO_CAM = np.array([[0.01, -0.99995, 0.0, 0.0], [0.0, 0.0, -1.0, -0.08], [0.99995, 0.01, 0.0, -0.27]])
P2 = np.array([[721.5377, 0, 609.5593, 44.857], [0, 721.5377, 172.854, 0.2163], [0, 0, 1, 0.0027]])


def row(name: str, matrix: np.ndarray) -> str:
    return f"{name}: " + " ".join(f"{v:.12e}" for v in np.asarray(matrix).reshape(-1)) + "\n"


def write_calibration(path: Path, p2: np.ndarray = P2) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [row(f"P{i}", p2) for i in range(4)] + [row("R0_rect", np.eye(3)), row("Tr_velo_to_cam", VELO_TO_CAM)]
    path.write_text("".join(rows) + "\n")
    return path


def write_labels(path: Path, rows: list[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(rows) + "\n")
    return path


CAR = "Car 0.00 0 -1.57 100.00 150.00 200.00 250.00 1.50 1.60 4.00 2.00 1.70 15.00 -1.20"
VAN = "Van 0.00 0 -1.57 100.00 150.00 200.00 250.00 2.00 1.90 5.00 4.00 1.70 25.00 0.30"
DONT_CARE = "DontCare -1 -1 -10 546.02 171.90 608.56 189.65 -1 -1 -1 -1000 -1000 -1000 -10"


def write_object_data(root: Path, frames: tuple[str, ...] = ("000000", "000001", "000002")) -> Path:
    for i, frame in enumerate(frames):
        for part in ("training", "testing"):
            write_bin(root / part / "velodyne" / f"{frame}.bin", cloud(i, 400))
            write_calibration(root / part / "calib" / f"{frame}.txt")
        write_labels(root / "training" / "label_2" / f"{frame}.txt", [CAR, VAN, DONT_CARE])
    sets = root / "ImageSets"
    sets.mkdir(exist_ok=True)
    (sets / "train.txt").write_text("\n".join(frames[:2]))
    (sets / "val.txt").write_text("\n".join(frames[2:]) + "\n")
    return root


def camera_poses(num: int, seed: int = 0) -> np.ndarray:
    """Return (num, 4, 4): a vehicle that drives forward (camera z) and turns."""
    rng = np.random.default_rng(seed)
    poses = [np.eye(4)]
    for _ in range(num - 1):
        angle = rng.uniform(-0.05, 0.05)
        step = np.eye(4)
        step[:3, :3] = [[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]]
        step[2, 3] = rng.uniform(0.5, 1.5)
        poses.append(poses[-1] @ step)
    return np.stack(poses)


def camera_T_velo() -> np.ndarray:
    result = np.vstack([VELO_TO_CAM, [0, 0, 0, 1.0]])
    # The example matrix is rounded; make it a rotation.
    u, _, v = np.linalg.svd(result[:3, :3])
    result[:3, :3] = u @ v
    return result


def write_pose_rows(path: Path, poses: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savetxt(path, poses[:, :3].reshape(len(poses), 12))
    return path


def static_world(poses: np.ndarray, seed: int = 0, num_points: int = 300) -> list[np.ndarray]:
    """Return what a sensor with these (F, 4, 4) world_T_sensor sees of fixed points: (num_points, 4) each."""
    world = cloud(seed, num_points).astype(np.float64)
    sweeps = []
    for pose in poses:
        sensor_T_world = np.linalg.inv(pose)
        xyz = world[:, :3] @ sensor_T_world[:3, :3].T + sensor_T_world[:3, 3]
        sweeps.append(np.concatenate([xyz, world[:, 3:]], 1).astype(np.float32))
    return sweeps


def write_odometry(root: Path, sequence: str = "03", numbers: tuple[int, ...] = (0, 1, 2, 5, 6)) -> np.ndarray:
    """Write a sequence with a gap; return the camera poses of all frames."""
    camera = camera_poses(max(numbers) + 1)
    extrinsic = camera_T_velo()
    folder = root / "sequences" / sequence
    sweeps = static_world(camera @ extrinsic)
    for number in numbers:
        write_bin(folder / "velodyne" / f"{number:06d}.bin", sweeps[number])
    (folder / "calib.txt").write_text(row("P0", P2) + row("Tr", extrinsic[:3]))
    (folder / "times.txt").write_text("".join(f"{0.1 * i:e}\n" for i in range(len(camera))))
    write_pose_rows(folder / "poses.txt", camera)
    return camera

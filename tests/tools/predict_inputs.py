"""Sweeps of the simulator in every kind of file that prediction reads, and detectors for them."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf
from pyarrow import feather

from equilidar.checkpoint.detector import save_detector
from equilidar.data.packing import Packing
from equilidar.data.simulator import SimulatedSweeps
from equilidar.structures import SensorContract
from equilidar.training.cli import CONFIGS
from tests.data.fake_logs import driven, write_log

CLASSES = ("Car", "Pedestrian", "Cyclist")
NUM = 5
CALIBRATION = """P2: 700 0 600 40 0 700 180 0.2 0 0 1 0.003
R0_rect: 1 0 0 0 1 0 0 0 1
Tr_velo_to_cam: 0 -1 0 0 0 0 -1 -0.08 1 0 0 -0.27
"""


def write_detector(
    path: Path, contract: SensorContract, classes: tuple[str, ...] = CLASSES, diverged: bool = False
) -> None:
    """Write a small SECOND that was never trained, but is not shy: it finds boxes anywhere, or diverged."""
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        cfg = compose("convert", ["grid=sim_tiny", "detector=second_small", "backbone.width=0.25"])
    plain = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(plain, dict)
    config = {name: plain[name] for name in ("grid", "backbone", "detector")}
    for anchor, name in zip(config["detector"]["anchors"], classes, strict=True):
        anchor["name"] = name
    config["detector"]["selection"]["max_boxes"] = 20
    torch.manual_seed(0)
    parts = instantiate(config, _convert_="all")
    backbone = parts["backbone"](in_channels=3 + len(contract.channels))
    detector = parts["detector"](backbone=backbone, class_names=classes)
    torch.nn.init.constant_(detector.head.conv_cls.bias, -0.5)
    if diverged:
        torch.nn.init.constant_(detector.head.conv_box.weight, 3e38)
    about = {"class_names": classes, "contract": contract, "provenance": {}}
    save_detector(path, detector, config=config, **about)


def write_inputs(folder: Path) -> None:
    """Write files, folders, a log and a store of the same sweeps, faulty ones, calibrations and detectors."""
    sweeps = SimulatedSweeps(num_sequences=1, frames_per_sequence=NUM, **small())
    contract = sweeps.contract
    write_detector(folder / "d.safetensors", contract)
    write_detector(folder / "byte.safetensors", SensorContract(("intensity",), (255.0,), "sensor"))
    write_detector(folder / "ego.safetensors", SensorContract(("intensity",), (255.0,), "ego"))
    write_detector(folder / "time.safetensors", SensorContract(("intensity", "time"), (1.0, -1.0), "sensor"))
    write_detector(folder / "diverged.safetensors", contract, diverged=True)
    nuscenes = ("car", "pedestrian", "bicycle")
    write_detector(folder / "nuscenes.safetensors", contract, nuscenes)
    for kind in ("bin", "npy", "ply", "feather", "drive/a", "drive/b", "faulty"):
        (folder / kind).mkdir(parents=True)
    for index in range(NUM):
        sweep = sweeps[index].sweep
        table = torch.cat([sweep.xyz, sweep.features], 1).numpy()
        name = f"{index:06d}"
        table.tofile(folder / "bin" / f"{name}.bin")
        table.tofile(folder / "faulty" / f"{name}.bin")
        table.tofile(folder / "drive" / ("a" if index < 2 else "b") / f"{name}.bin")
        np.save(folder / "npy" / f"{name}.npy", table)
        write_ply(folder / "ply" / f"{name}.ply", table)
        columns = {
            n: table[:, i] * (255 if n == "intensity" else 1) for i, n in enumerate(("x", "y", "z", "intensity"))
        }
        feather.write_feather(pa.table(columns), str(folder / "feather" / f"{315966000 + index}.feather"))
    cut = folder / "faulty" / "000001.bin"
    cut.write_bytes(cut.read_bytes()[:-3])
    np.full((9, 4), np.nan, np.float32).tofile(folder / "faulty" / "000003.bin")
    (folder / "calib").mkdir()
    for index in range(NUM):
        (folder / "calib" / f"{index:06d}.txt").write_text(CALIBRATION)
    write_log(folder / "log" / "drive", driven(3))
    pack = Packing(sweeps, folder / "store", "python tools/prepare.py", num_workers=1)
    pack.run(1)


def small() -> dict:
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        cfg = compose("finetune", ["dataset.sensor.azimuth_steps=180", "dataset.sensor.beam_stride=8"])
    plain = instantiate({"sensor": cfg.dataset.sensor}, _convert_="all")
    return {"sensor": plain["sensor"]}


def write_ply(path: Path, table: np.ndarray) -> None:
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(table)}"]
    header += [f"property float {name}" for name in ("x", "y", "z", "intensity")]
    path.write_bytes("\n".join([*header, "end_header\n"]).encode() + table.astype("<f4").tobytes())

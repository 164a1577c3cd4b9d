"""OpenPCDet's files in and out, bit by bit; its results are in tests/backbones and tests/detection."""

import json

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf

from equilidar.backbones import VoxelBackBone8x
from equilidar.checkpoint import load_openpcdet_state, to_openpcdet_state
from equilidar.checkpoint.detector import read_detector
from equilidar.checkpoint.foreign_file import read_foreign
from equilidar.checkpoint.identity import content_hash
from equilidar.checkpoint.importing import ImportSettings
from equilidar.detection.openpcdet_keys import DETECTOR_KEYS
from equilidar.structures import GridSpec, SensorContract
from equilidar.training.cli import CONFIGS
from equilidar.training.conversion import build, import_network, read_ours, rebuild, write_network

GRID = GridSpec((0.0, -3.2, -3.0), (6.4, 3.2, 1.0), (0.1, 0.1, 0.1))
CONTRACT = SensorContract(("intensity",), (1.0,), "sensor")
FROM_KRSC = {"rsck": (1, 2, 3, 4, 0), "rskc": (1, 2, 3, 0, 4)}
CLASSES = ("Car", "Pedestrian", "Cyclist")


def backbone(seed: int) -> VoxelBackBone8x:
    torch.manual_seed(seed)
    return VoxelBackBone8x(GRID, 4)


def parts_of(*overrides: str) -> tuple[dict, dict]:
    """Return what `tools/convert.py` instantiates, and the config of it."""
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        cfg = compose("convert", list(overrides))
    plain = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(plain, dict)
    config = {name: plain[name] for name in ("grid", "backbone", "detector")}
    return instantiate(config, _convert_="all"), config


def test_second_backbone_has_72_tensors_under_their_names():
    """12 pairs of convolution and normalisation, 6 tensors each: what OpenPCDet's SECOND has below backbone_3d."""
    state = to_openpcdet_state(backbone(0))
    assert len(state) == 72
    assert state["backbone_3d.conv_input.0.weight"].shape == (16, 3, 3, 3, 4)
    assert state["backbone_3d.conv4.2.1.running_var"].shape == (64,)
    assert state["backbone_3d.conv_out.0.weight"].shape == (128, 3, 1, 1, 64)


def test_round_trip_is_exact_and_leaves_out_other_modules():
    source, target = backbone(1), backbone(2)
    state = to_openpcdet_state(source) | {"global_step": torch.zeros(1), "dense_head.conv_cls.bias": torch.zeros(18)}
    report = load_openpcdet_state(target, state)
    assert content_hash(target.state_dict()) == content_hash(source.state_dict())
    assert report.coverage == 1 and report.skipped == ("global_step", "dense_head.conv_cls.bias")
    assert "left out, not of the VoxelBackBone8x: dense_head, global_step" in report.notes


@pytest.mark.parametrize("layout", ["rsck", "rskc"])
def test_older_layouts_are_written_and_read(layout):
    source, target = backbone(1), backbone(2)
    state = to_openpcdet_state(source, layout=layout)
    for name, value in to_openpcdet_state(source).items():
        expected = value.permute(FROM_KRSC[layout]) if value.dim() == 5 else value
        assert torch.equal(state[name], expected) and state[name].is_contiguous()
    with pytest.raises(ValueError, match=rf"layout=krsc.*{layout}"):
        load_openpcdet_state(target, state, layout="krsc")
    load_openpcdet_state(target, state)
    assert content_hash(target.state_dict()) == content_hash(source.state_dict())


def test_state_without_a_backbone_is_refused():
    with pytest.raises(ValueError, match=r"no tensor conv_input\.0\.weight.*model\.backbone_2d"):
        load_openpcdet_state(backbone(0), {"model.backbone_2d.x": torch.zeros(1)})
    with pytest.raises(ValueError, match="layout must be one of"):
        load_openpcdet_state(backbone(0), to_openpcdet_state(backbone(0)), layout="kcrs")


def test_a_tensor_without_a_name_there_is_refused():
    network = torch.nn.Module()
    network.register_buffer("ours_alone", torch.zeros(1))
    with pytest.raises(ValueError, match="OpenPCDet has no name for ours_alone"):
        to_openpcdet_state(network, DETECTOR_KEYS)


# What detectors of these names need beside the plain backbone and cells of 0.2 m.
NEEDS = {
    "pointpillars": ["backbone=pillar", "grid.voxel_size=[0.2,0.2,4.0]"],
    "centerpoint": ["backbone=voxel_residual"],
}
NAMES = sorted(path.stem for path in (CONFIGS / "detector").glob("*.yaml"))


@pytest.mark.parametrize("name", NAMES)
def test_every_detector_goes_out_and_comes_back(name, tmp_path):
    """Any state under OpenPCDet's names is covered by what we write, and loads into the same network again."""
    needs = next((own for start, own in NEEDS.items() if name.startswith(start)), [])
    area = ["grid.point_range=[0,-12.8,-3,25.6,12.8,1]", "grid.voxel_size=[0.2,0.2,0.1]"]
    parts, config = parts_of(f"detector={name}", *area, *needs)
    classes = [one for task in config["detector"].get("tasks", [CLASSES]) for one in task]
    torch.manual_seed(3)
    first, second = (build(parts, CONTRACT, config, classes) for _ in range(2))
    write_network(first, tmp_path / "out.pth", "openpcdet")
    file = read_foreign(tmp_path / "out.pth")
    assert next(iter(file.tensors)) == "global_step" and file.record is not None
    loaded = import_network(file, "openpcdet", second, ImportSettings())
    for key, value in first.network.state_dict().items():
        assert torch.equal(loaded.network.state_dict()[key], value), key
    write_network(loaded, tmp_path / "detector.safetensors", "equilidar")
    saved = read_detector(tmp_path / "detector.safetensors")
    again = rebuild(saved, instantiate(saved.config, _convert_="all"), "detector.safetensors")
    write_network(again, tmp_path / "again.pth", "openpcdet")
    assert_same_file(tmp_path / "out.pth", tmp_path / "again.pth")


def assert_same_file(first, second) -> None:
    ours, theirs = (read_foreign(path).tensors for path in (first, second))
    assert list(ours) == list(theirs), "the same keys in the same order"
    for name, value in theirs.items():
        assert ours[name].dtype == value.dtype and torch.equal(ours[name], value), name


def second_cases(oracles):
    found = sorted(path.parent for path in (oracles / "openpcdet").glob("second_*/state_dict.npz"))
    if not found:
        pytest.skip(f"no states of SECOND in {oracles / 'openpcdet'}")
    return found


def write_pth(folder, path, wrap: str = ""):
    """Write a state as OpenPCDet writes its checkpoints, NumPy numbers of its schedule included."""
    with np.load(folder / "state_dict.npz", allow_pickle=False) as file:
        state = {wrap + name: torch.from_numpy(file[name]) for name in file.files}
    optimizer = {"param_groups": [{"lr": np.float64(3e-5), "params": [0]}]}
    content = {"epoch": 80, "it": np.int64(37120), "model_state": state, "optimizer_state": optimizer}
    torch.save({**content, "version": "pcdet+0.6.0"}, path, _use_new_zipfile_serialization=False)
    return state


def test_oracle_second_goes_in_and_out_bit_by_bit(oracles, tmp_path):
    parts, config = parts_of("detector=second")
    for folder in second_cases(oracles):
        state = write_pth(folder, tmp_path / "second.pth")
        state["global_step"].fill_(37120)
        torch.save({"epoch": 80, "it": 37120, "model_state": state, "version": "pcdet+0.6.0"}, tmp_path / "second.pth")
        handed = build(parts, CONTRACT, config, CLASSES)
        handed = import_network(read_foreign(tmp_path / "second.pth"), "openpcdet", handed, ImportSettings())
        write_network(handed, tmp_path / "d.safetensors", "equilidar")
        saved = read_ours(tmp_path / "d.safetensors")
        again = rebuild(saved, instantiate(saved.config, _convert_="all"), "d.safetensors")
        write_network(again, tmp_path / "back.pth", "openpcdet")
        assert_same_file(tmp_path / "second.pth", tmp_path / "back.pth")
        back = read_foreign(tmp_path / "back.pth")
        assert back.about == {"epoch": 80, "it": 37120, "version": "pcdet+0.6.0"}
        assert len(back.tensors) == 163
        listed = folder / "state_dict_keys.json"
        if listed.is_file():
            keys = json.loads(listed.read_text())
            written = {n: [list(v.shape), str(v.dtype).removeprefix("torch.")] for n, v in back.tensors.items()}
            assert list(written) == list(keys), "names and their order"
            assert written == {n: [list(shape), dtype.removeprefix("torch.")] for n, (shape, dtype) in keys.items()}


def test_oracle_backbone_of_second_goes_in_and_out(oracles, tmp_path):
    parts, config = parts_of()
    for folder in second_cases(oracles):
        state = write_pth(folder, tmp_path / "second.pth", "module.")
        handed = build(parts, CONTRACT, config, CLASSES)
        handed = import_network(read_foreign(tmp_path / "second.pth"), "openpcdet", handed, ImportSettings())
        write_network(handed, tmp_path / "b.safetensors", "equilidar")
        again = rebuild(read_ours(tmp_path / "b.safetensors"), {}, "b.safetensors")
        for suffix in (".pth", ".safetensors"):
            write_network(again, tmp_path / f"back{suffix}", "openpcdet")
            back = read_foreign(tmp_path / f"back{suffix}").tensors
            expected = {name: value for name, value in state.items() if name.startswith("module.backbone_3d.")}
            assert len(back) == len(expected) == 72
            assert all(torch.equal(back[name.removeprefix("module.")], value) for name, value in expected.items())

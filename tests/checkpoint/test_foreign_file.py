"""Foreign checkpoints are opened whatever wraps their tensors, and nothing that they hold is ever run."""

import pickle
import sys
import types

import numpy as np
import pytest
import torch

from equilidar.checkpoint.foreign_file import read_foreign
from equilidar.checkpoint.openpcdet import write_openpcdet
from equilidar.checkpoint.record import FileRecord

from .foreign_states import GRID, OPENPCDET_PLAIN, plain_layers, state

TENSORS = state(plain_layers(), OPENPCDET_PLAIN, "backbone_3d.")


def save(path, content, zipped=True):
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    return path


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("key", ["model_state", "state_dict", "model", None])
def test_the_state_is_found(tmp_path, key, zipped):
    content = TENSORS if key is None else {key: TENSORS, "epoch": 80, "meta": {"classes": ["Car"]}, "optimizer": None}
    file = read_foreign(save(tmp_path / "x.pth", content, zipped))
    assert list(file.tensors) == list(TENSORS)
    assert all(torch.equal(file.tensors[name], value) for name, value in TENSORS.items())
    assert file.about == ({} if key is None else {"epoch": 80}) and file.record is None


@pytest.mark.parametrize("zipped", [True, False])
def test_pickled_numpy_numbers_are_read(tmp_path, zipped):
    """Schedules leave them in the optimizer's state, and loops in the counters."""
    groups = [{"lr": np.float64(0.003), "momentum": np.float32(0.9), "on": np.bool_(True), "table": np.arange(4.0)}]
    content = {
        "model_state": TENSORS, "epoch": np.int64(80), "it": np.int32(5), "version": np.str_("pcdet+0.6"),
        "optimizer_state": {"param_groups": groups, "best": np.float16(0.5)},
    }  # fmt: skip
    file = read_foreign(save(tmp_path / "x.pth", content, zipped))
    assert file.about == {"epoch": 80, "it": 5, "version": "pcdet+0.6"}
    assert all(type(value) in (int, str) for value in file.about.values())


@pytest.mark.parametrize("module", ["numpy.core.multiarray", "numpy._core.multiarray"])
def test_numbers_pickled_by_either_numpy_are_read(tmp_path, module):
    """NumPy 2 renamed the module that its pickles name."""
    path = save(tmp_path / "x.pth", {"model_state": TENSORS, "epoch": np.int64(80)}, zipped=False)
    written = np.int64(80).__reduce__()[0].__module__.encode()
    content = path.read_bytes()
    assert content.count(written) == 1
    # The name stands as one line or with its length before it.
    old, new = written + b"\n", module.encode() + b"\n"
    assert old in content
    path.write_bytes(content.replace(old, new))
    assert read_foreign(path).about == {"epoch": 80}


class Payload:
    def __reduce__(self):
        return (exec, ("raise AssertionError('code of a checkpoint was run')",))


class SomebodysConfig:
    pass


@pytest.mark.parametrize("zipped", [True, False])
def test_code_is_never_run(tmp_path, zipped):
    for value, named in ((Payload(), "exec"), (SomebodysConfig(), "SomebodysConfig")):
        path = save(tmp_path / "evil.pth", {"model_state": TENSORS, "version": value}, zipped)
        with pytest.raises(ValueError, match="holds more than tensors") as error:
            read_foreign(path)
        assert named in str(error.value) and "\n" not in str(error.value)


def test_numpy_objects_with_code_inside_are_refused(tmp_path):
    path = tmp_path / "evil.pth"
    save(path, {"model_state": TENSORS, "x": np.array([Payload()], dtype=object)})
    with pytest.raises(ValueError, match="holds more than tensors"):
        read_foreign(path)


def test_classes_of_training_frameworks_are_dropped(tmp_path, monkeypatch):
    """Lightning's hyper-parameters and mmengine's histories stand beside the weights; none of them is needed."""
    names = ("mmengine", "mmengine.logging", "mmengine.logging.history_buffer")
    for name in names:
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    history = type("HistoryBuffer", (), {"__module__": names[-1], "values": None})
    setattr(sys.modules[names[-1]], "HistoryBuffer", history)  # noqa: B010 (pyright knows no such attribute)
    buffer = history()
    buffer.values = np.arange(3.0)
    path = save(tmp_path / "mm.pth", {"state_dict": TENSORS, "message_hub": {"loss": buffer}})
    for name in names:
        monkeypatch.delitem(sys.modules, name)
    assert list(read_foreign(path).tensors) == list(TENSORS)
    from pytorch_lightning.utilities.parsing import AttributeDict

    path = save(tmp_path / "also.ckpt", {"state_dict": TENSORS, "hyper_parameters": AttributeDict(lr=1.0)})
    assert list(read_foreign(path).tensors) == list(TENSORS)


def test_unreadable_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pth"):
        read_foreign(tmp_path / "nowhere.pth")
    (tmp_path / "text.pth").write_text("not a checkpoint")
    with pytest.raises(ValueError, match=r"text\.pth is damaged"):
        read_foreign(tmp_path / "text.pth")
    (tmp_path / "empty.pth").write_bytes(b"")
    with pytest.raises(ValueError, match=r"empty\.pth is damaged"):
        read_foreign(tmp_path / "empty.pth")
    whole = save(tmp_path / "cut.pth", {"model_state": TENSORS}).read_bytes()
    (tmp_path / "cut.pth").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"cut\.pth is damaged"):
        read_foreign(tmp_path / "cut.pth")
    (tmp_path / "list.pth").write_bytes(pickle.dumps([1, 2]))
    with pytest.raises(ValueError, match=r"list\.pth"):
        read_foreign(tmp_path / "list.pth")
    with pytest.raises(ValueError, match="no model_state"):
        read_foreign(save(tmp_path / "none.pth", {"model_state": {"epoch": 1}}))


def test_parts_of_a_file_are_chosen_by_name(tmp_path):
    path = save(tmp_path / "two.pth", {"teacher": TENSORS, "student": TENSORS})
    with pytest.raises(ValueError, match="state=teacher or state=student"):
        read_foreign(path)
    assert list(read_foreign(path, "teacher").tensors) == list(TENSORS)
    with pytest.raises(ValueError, match="no state=ema; it has teacher, student"):
        read_foreign(path, "ema")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_our_own_exports_say_their_layout(tmp_path, suffix):
    record = FileRecord.of("openpcdet", "VoxelBackBone8x", 4, GRID, "rsck")
    write_openpcdet(tmp_path / f"x{suffix}", TENSORS, record, {"epoch": 3, "it": 7, "version": "pcdet"})
    file = read_foreign(tmp_path / f"x{suffix}")
    assert file.record == record and file.record.spconv_layout == "rsck"
    assert file.record.range == [0.0, -3.2, -3.0, 6.4, 3.2, 1.0] and file.record.in_features == 4
    assert file.tensors.keys() == TENSORS.keys()
    if suffix == ".pth":
        assert file.about == {"epoch": 3, "it": 7, "version": "pcdet"}
    with pytest.raises(ValueError, match=r"\.pth or \.safetensors file, got x\.onnx"):
        write_openpcdet(tmp_path / "x.onnx", TENSORS, record, {})

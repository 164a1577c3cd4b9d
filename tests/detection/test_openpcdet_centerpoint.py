"""CenterPoint gives OpenPCDet's numbers, from points to losses.

Cases are folders `centerpoint_*` among the reference results, and, so that this test is known to read and to refuse,
two that the plain implementation of `reference_centerpoint` and `reference_centers` writes in the same form.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from equilidar.detection.openpcdet_keys import our_key

from .centerpoint_case import Folder, boxes_of, read_folder, stored_losses
from .centerpoint_checks import check_decoded, check_losses, check_network, check_targets
from .openpcdet_case import assert_parameter_gradients, load, points_of


def test_openpcdet_oracle_weights_load_key_by_key(centerpoint_case) -> None:
    folder = read_folder(centerpoint_case)
    arrays = load(folder.path / "state_dict.npz")
    model = folder.model(next(iter(folder.cases.values())))
    state = model.state_dict()
    assert {our_key(key) for key in arrays} - {None} == set(state)
    for key, value in arrays.items():
        name = our_key(key)
        assert name is None or np.array_equal(state[name].numpy(), value), key
    listed = folder.path / "state_dict_keys.json"
    if listed.is_file():
        shapes = {key: tuple(shape) for key, (shape, _) in json.loads(listed.read_text()).items()}
        assert shapes == {key: value.shape for key, value in arrays.items()}


def test_openpcdet_oracle_stages_maps_and_heads(centerpoint_case, capsys) -> None:
    folder = read_folder(centerpoint_case)
    if not folder.has_weights:
        pytest.skip(f"{folder.path.name} has no weights")
    deviations = check_network(folder)
    worst = {
        key.split("/")[0] if key.startswith("head") else key: value
        for key, value in sorted(deviations.items(), key=lambda pair: pair[1])
    }
    with capsys.disabled():
        print(
            f"\n{folder.path.name}: largest deviations " + ", ".join(f"{k} {v:.1e}" for k, v in worst.items()), end=""
        )


def test_openpcdet_oracle_decoded_boxes(centerpoint_case) -> None:
    folder = read_folder(centerpoint_case)
    if not any(key.startswith("decoded/") for case in folder.cases.values() for key in case):
        pytest.skip(f"{folder.path.name} has no decoded boxes")
    assert check_decoded(folder) > 0


def test_openpcdet_oracle_targets(centerpoint_case) -> None:
    folder = read_folder(centerpoint_case)
    if not folder.targets:
        pytest.skip(f"{folder.path.name} has no targets")
    names = sorted(key for _, arrays in folder.targets for key in arrays if key.startswith("targets"))
    assert check_targets(folder) > 0, f"no name among {names} was understood"


def test_openpcdet_oracle_losses(centerpoint_case) -> None:
    folder = read_folder(centerpoint_case)
    if not any(stored_losses(arrays) for _, arrays in folder.targets):
        pytest.skip(f"{folder.path.name} has no losses")
    check_losses(folder)


def test_openpcdet_oracle_parameter_gradients(centerpoint_case) -> None:
    folder = read_folder(centerpoint_case)
    stored = load(folder.path / "param_grads.npz")
    boxed = [pair for pair in folder.targets if any("gt_boxes" in key for key in pair[1])]
    if not boxed:
        pytest.skip(f"{folder.path.name} does not say which boxes its gradients are of")
    case, targets = boxed[0]
    model = folder.model(case)
    model.loss(model(points_of(case)), boxes_of(targets)).total().backward()
    assert_parameter_gradients(stored, model)


# --- the checks themselves: they refuse what is wrong, and read other spellings ---


def changed(source: Path, folder: Path, file: str, change) -> Folder:
    """Copy a case and change one file's arrays."""
    folder.mkdir()
    for path in source.iterdir():
        if path.name != file:
            shutil.copy(path, folder / path.name)
    arrays = load(source / file)
    change(arrays)
    np.savez(folder / file, **arrays)
    return Folder.read(folder)


def nudge(key: str, amount: float):
    def change(arrays: dict[str, np.ndarray]) -> None:
        flat = arrays[key].astype(arrays[key].dtype).reshape(-1).copy()
        flat[len(flat) // 2] += amount
        arrays[key] = flat.reshape(arrays[key].shape)

    return change


@pytest.mark.parametrize(
    ("file", "key", "amount", "check"),
    [
        ("crop_case.npz", "x_conv3/features/sample_val", 0.02, check_network),
        ("crop_case.npz", "x_conv2/row_indices", 1, check_network),
        ("crop_case.npz", "head3/vel", 0.02, check_network),
        ("crop_case.npz", "decoded/top200_boxes", 0.02, check_decoded),
        ("crop_case.npz", "decoded/top200_labels", 20, check_decoded),
        ("targets_loss.npz", "targets/head1/heatmap_nonzero_val", 0.01, check_targets),
        ("targets_loss.npz", "targets/head4/inds", 1, check_targets),
        ("targets_loss.npz", "targets/head5/boxes", 0.01, check_targets),
        ("targets_loss.npz", "targets/loss_values", 0.02, check_losses),
    ],
)
def test_a_wrong_number_is_found(centerpoint_reference: Path, tmp_path: Path, file, key, amount, check) -> None:
    with pytest.raises(AssertionError):
        check(changed(centerpoint_reference, tmp_path / "centerpoint_wrong", file, nudge(key, amount)))


@pytest.mark.parametrize("spelling", ["targets/{0}/{1}", "targets/{1}_head{0}", "targets/head_{0}_{1}", "stacked"])
def test_other_spellings_are_read(centerpoint_reference: Path, tmp_path: Path, spelling: str) -> None:
    """Heads numbered in other ways or stacked, losses one by one, targets beside the points."""
    arrays = load(centerpoint_reference / "crop_case.npz") | load(centerpoint_reference / "targets_loss.npz")
    names, values = arrays.pop("targets/loss_names"), arrays.pop("targets/loss_values")
    arrays |= {f"losses/{name}": np.array(value) for name, value in zip(names, values, strict=True)}
    spelled = {}
    for key, value in arrays.items():
        number, _, name = key.removeprefix("targets/head").partition("/")
        if key.startswith("targets/head") and spelling != "stacked":
            key = spelling.format(number, name)
        spelled[key.replace("decoded/top200_", "decoded/")] = value
    if spelling == "stacked":
        for name in ("inds", "masks", "boxes"):
            spelled[f"targets/{name}"] = np.stack([spelled.pop(f"targets/head{number}/{name}") for number in range(6)])
    (tmp_path / "centerpoint_other").mkdir()
    np.savez(tmp_path / "centerpoint_other" / "case.npz", **spelled)
    folder = Folder.read(tmp_path / "centerpoint_other")
    assert check_decoded(folder) == 200 and check_targets(folder) == 6 * 4
    assert len(check_losses(folder)) == 13


@pytest.mark.parametrize("kind", ["whole", "samples"])
def test_what_is_absent_is_skipped(
    centerpoint_reference: Path, centerpoint_samples: Path, tmp_path: Path, kind
) -> None:
    path = tmp_path / "centerpoint_part"
    ignore = shutil.ignore_patterns("state_dict*")
    shutil.copytree(centerpoint_samples if kind == "samples" else centerpoint_reference, path, ignore=ignore)
    test_openpcdet_oracle_targets(path)
    for test in (test_openpcdet_oracle_weights_load_key_by_key, test_openpcdet_oracle_parameter_gradients):
        with pytest.raises(pytest.skip.Exception, match=r"state_dict\.npz"):
            test(path)
    if kind == "samples":
        for test in (test_openpcdet_oracle_losses, test_openpcdet_oracle_decoded_boxes):
            with pytest.raises(pytest.skip.Exception, match="neither weights nor whole head maps"):
                test(path)
    else:
        test_openpcdet_oracle_losses(path)
        test_openpcdet_oracle_decoded_boxes(path)

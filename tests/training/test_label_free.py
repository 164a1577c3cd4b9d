"""What pretraining refuses."""

import pytest

from equilidar.training.cli import CONFIGS
from equilidar.training.known_keys import explain_override
from equilidar.training.label_free import refuse_labels


def test_a_config_without_labels_passes():
    config = {"dataset": {"_target_": "equilidar.data.kitti_raw.KittiRaw"}, "list": [{"_target_": "torch.optim.SGD"}]}
    assert refuse_labels(config) is None
    with pytest.raises(ValueError, match="labels"):
        refuse_labels({**config, "labels": {"fraction": 0.1}})


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"gt_sampling": {"database": "x"}}, "gt_sampling pastes labelled objects, and pretraining uses no labels"),
        ({"labels": {"fraction": 0.1}}, "labels chooses labelled sweeps, and pretraining uses no labels"),
        (
            {"augment": {"parts": [{"_target_": "equilidar.data.gt_sampling.GtSampling"}]}},
            r"augment\.parts\[0\] is equilidar\.data\.gt_sampling\.GtSampling, which reads labels",
        ),
    ],
)
def test_labels_are_refused_wherever_they_stand(config, message):
    with pytest.raises(ValueError, match=message):
        refuse_labels(config)


@pytest.mark.parametrize("group", ["gt_sampling=kitti", "labels=subset"])
def test_a_group_that_pretraining_does_not_have_is_explained(group: str):
    line = explain_override(ValueError("unused"), str(CONFIGS), "pretrain", [group])
    assert line.startswith(group.partition("=")[0]) and "pretraining uses no labels" in line

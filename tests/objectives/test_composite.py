from functools import partial

import pytest
import torch

from equilidar.objectives import CompositeObjective, FlowEquivariance, Objective, PointContrast, RotationClassification
from equilidar.structures import BackboneFeatures

from .toy import ToyEncoder, encode_pair, target_copy, views

PARTIALS = {
    "point_contrast": partial(PointContrast, projector=(16, 8), weight=2.0),
    "rotation": partial(RotationClassification, hidden=(16,)),
    "flow_equivariance": partial(FlowEquivariance, projector=(16, 8), predictor=(8, 8)),
}


def test_terms_weights_and_metrics_are_those_of_the_parts():
    torch.manual_seed(0)
    encoder = ToyEncoder()
    pair = encode_pair(views(1, 2), encoder, target_copy(encoder))
    composite = CompositeObjective.from_partials(PARTIALS, features=encoder.feature_info).eval()
    out = composite(pair)
    assert list(out.terms) == ["point_contrast/info_nce", "rotation/cross_entropy", "flow_equivariance/regression"]
    expected = torch.zeros(())
    for name, part in composite.objectives.items():
        alone = part(pair)
        expected = expected + alone.total()
        for term in alone.terms:
            torch.testing.assert_close(out.terms[f"{name}/{term}"], alone.terms[term])
        for metric, value in alone.metrics.items():
            torch.testing.assert_close(out.metrics[f"{name}/{metric}"], value)
            assert not value.requires_grad
    torch.testing.assert_close(out.total(), expected)
    assert set(composite.embeddings(pair)) == {"point_contrast/points", "flow_equivariance/predictions"}


def test_reads_and_moving_averages_are_those_of_all_parts():
    features = ToyEncoder().feature_info
    composite = CompositeObjective.from_partials(PARTIALS, features=features)
    assert composite.reads == {"a", "b", "source"}
    assert len(composite.ema_pairs()) == 1
    without = CompositeObjective.from_partials({**PARTIALS, "flow_equivariance": None}, features=features)
    assert without.reads == {"a", "b"} and without.ema_pairs() == []
    for objective in (composite, *composite.objectives.values()):
        assert isinstance(objective, Objective)


def test_no_objective_is_an_error():
    with pytest.raises(ValueError, match="choose at least one"):
        CompositeObjective({})


def test_views_are_encoded_once_whatever_reads_them(monkeypatch: pytest.MonkeyPatch):
    torch.manual_seed(0)
    encoder = ToyEncoder()
    calls = []
    forward = ToyEncoder.forward

    def counted(self: ToyEncoder, points) -> BackboneFeatures:
        calls.append(len(points.xyz))
        return forward(self, points)

    monkeypatch.setattr(ToyEncoder, "forward", counted)
    composite = CompositeObjective.from_partials(PARTIALS, features=encoder.feature_info)
    pair = encode_pair(views(1), encoder, target_copy(encoder))
    composite(pair).total().backward()
    composite.embeddings(pair)
    assert len(calls) == 3  # two online views and the source

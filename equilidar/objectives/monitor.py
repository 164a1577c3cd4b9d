"""Signs of collapse, and which term pulls how hard on the encoder. Pure functions, to be called every N steps."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


def channel_std(embedding: Float[Tensor, "N D"]) -> Float[Tensor, " D"]:
    """Return each channel's standard deviation over rows scaled to unit length.

    Spread evenly over the sphere they are about 1 / sqrt(D); at a collapse to one point, zero (Chen & He, "Exploring
    Simple Siamese Representation Learning", CVPR 2021, section 4.1).
    """
    if len(embedding) == 0:
        return embedding.new_zeros(embedding.shape[1], dtype=torch.float32)
    return F.normalize(embedding.detach().float(), dim=1).std(0, correction=0)


def effective_rank(embedding: Float[Tensor, "N D"]) -> Float[Tensor, ""]:
    """Return exp of the entropy of the covariance's normalised eigenvalues; 0 where nothing varies.

    Roy & Vetterli, "The effective rank", EUSIPCO 2007, applied to the covariance: D where all directions vary alike,
    1 where one does.
    """
    rows = embedding.detach().double()
    if len(rows) < 2:
        return rows.new_zeros((), dtype=torch.float32)
    if not rows.isfinite().all():
        return rows.new_full((), torch.nan, dtype=torch.float32)
    eigenvalues = torch.linalg.eigvalsh(torch.cov(rows.T).reshape(rows.shape[1], -1)).clamp(min=0)
    total = eigenvalues.sum()
    share = eigenvalues / torch.where(total > 0, total, 1.0)
    entropy = -torch.special.xlogy(share, share).sum()
    return torch.where(total > 0, entropy.exp(), 0.0).float()


@dataclass(frozen=True, slots=True)
class CollapseReport:
    """What a monitor saw in one embedding.

    Attributes:
        std: mean over channels of `channel_std`.
        lowest_std: that of the channel that varies least.
        rank: effective rank.
        reasons: why this is a collapse; empty if it is none.
    """

    std: float
    lowest_std: float
    rank: float
    reasons: tuple[str, ...]

    @property
    def collapsed(self) -> bool:
        return bool(self.reasons)


@dataclass(frozen=True)
class CollapseMonitor:
    """Judges whether an embedding has collapsed to a point, or to a line.

    Attributes:
        min_std: lowest healthy mean `channel_std`, in units of 1 / sqrt(D).
        min_rank: lowest healthy effective rank.
    """

    min_std: float = 0.2
    min_rank: float = 2.0

    def __call__(self, embedding: Float[Tensor, "N D"]) -> CollapseReport:
        """Measure and judge; waits for the device."""
        std = channel_std(embedding)
        mean, lowest, rank = torch.stack([std.mean(), std.min(), effective_rank(embedding)]).tolist()
        reasons = []
        if len(embedding) > 1:
            floor = self.min_std * embedding.shape[1] ** -0.5
            if not mean >= floor:
                reasons.append(f"features hardly differ: mean standard deviation {mean:.2e} is below {floor:.2e}")
            if not rank >= self.min_rank:
                reasons.append(f"features vary in too few directions: effective rank {rank:.2f} < {self.min_rank}")
        return CollapseReport(mean, lowest, rank, tuple(reasons))


def gradient_norms(terms: Mapping[str, Tensor], parameters: Iterable[nn.Parameter]) -> dict[str, Float[Tensor, ""]]:
    """Return the norm of each term's gradient on the given parameters (the encoder's).

    One backward pass per term; the graph is kept for the step's own, and neither `.grad` nor DDP's hooks are touched.

    Args:
        terms: scalar losses, weighted or not.
        parameters: those on which the terms pull.
    """
    wanted = [parameter for parameter in parameters if parameter.requires_grad]
    norms = {}
    for name, term in terms.items():
        if not term.requires_grad or not wanted:
            norms[name] = torch.zeros_like(term.detach())
            continue
        gradients = torch.autograd.grad(term, wanted, retain_graph=True, allow_unused=True)
        squares = [gradient.float().square().sum() for gradient in gradients if gradient is not None]
        norms[name] = torch.stack(squares).sum().sqrt() if squares else torch.zeros_like(term.detach())
    return norms

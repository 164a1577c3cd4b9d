"""Views of sweeps under drawn transforms, and what relates them: all that an objective may know."""

from dataclasses import dataclass

from jaxtyping import Bool, Float, Int64
from torch import Tensor

from equilidar.structures.moving import Movable
from equilidar.structures.points import PointCloudBatch
from equilidar.structures.transform import Affine3


@dataclass(slots=True)
class TransformDraw(Movable):
    """Parameters of a drawn spatial transform, one per item: R * S * F, then a shift.

    Attributes:
        yaw: (B,) rotation about +z, radians.
        scale: (B,) factor.
        flip_y: (B,) bool, mirror y -> -y, applied first.
        translation: (B, 3) metres, applied last.
    """

    yaw: Float[Tensor, " B"]
    scale: Float[Tensor, " B"]
    flip_y: Bool[Tensor, " B"]
    translation: Float[Tensor, "B 3"]

    def affine(self) -> Affine3:
        """Return the transform."""
        return Affine3.from_parts(yaw=self.yaw, scale=self.scale, flip_y=self.flip_y, translation=self.translation)


@dataclass(slots=True)
class View(Movable):
    """A sweep as it is shown to a network: moved, then cropped to the grid.

    Attributes:
        points: the moved points inside the grid.
        origin: (N,) int64 row of each point in the batch's uncropped sweep.
        draw: the transform's parameters.
        view_T_sweep: the transform.
    """

    points: PointCloudBatch
    origin: Int64[Tensor, " N"]
    draw: TransformDraw
    view_T_sweep: Affine3


@dataclass(slots=True)
class WarpedSource(Movable):
    """The source sweep in view a's frame, and where its points are at the target's time.

    Attributes:
        view: the source sweep under view a's transform, in its own sensor frame (ego motion NOT removed).
        warped: (N, 3) the same points after scene flow (ego motion included), in view a's frame.
        valid: (N,) bool: the flow is known.
        weight: (N,) 0..1, the flow's confidence.
    """

    view: View
    warped: Float[Tensor, "N 3"]
    valid: Bool[Tensor, " N"]
    weight: Float[Tensor, " N"]


@dataclass(slots=True)
class ViewPair(Movable):
    """Two views of the target sweep, and the source sweep.

    Attributes:
        a, b: two views under independent draws.
        source: None when no objective reads it.
        matches: (P, 2) int64 rows of a.points and b.points that are the same physical point, sorted by item.
        match_offsets: (B + 1,) which matches belong to which item.
        seeds: (B,) int64 per-sample seeds for whatever an objective draws.
        keys: names of the pairs.
        temporal: the target sweep as the temporal branch sees it, where that is a third view; None where it is view a.
            The source then is in this view's frame instead of view a's.
    """

    a: View
    b: View
    source: WarpedSource | None
    matches: Int64[Tensor, "P 2"]
    match_offsets: Int64[Tensor, " B1"]
    seeds: Int64[Tensor, " B"]
    keys: tuple[str, ...]
    temporal: View | None = None

    @property
    def batch_size(self) -> int:
        return len(self.keys)

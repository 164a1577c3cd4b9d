"""Frames of a log and how they move in one another: static and timed transforms, as tf keeps them."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation, Slerp

# Between two poses further apart than this (seconds) nothing is interpolated: the source was silent.
_LONGEST_GAP = 0.5


@dataclass(frozen=True)
class Motion:
    """How a frame moves in its parent.

    Attributes:
        parent: name of the parent frame.
        times_ns: (K,) rising.
        parent_T_child: (K, 4, 4).
    """

    parent: str
    times_ns: NDArray[np.int64]
    parent_T_child: NDArray[np.float64]

    @classmethod
    def sorted(cls, parent: str, times_ns: NDArray[np.int64], parent_T_child: NDArray[np.float64]) -> "Motion":
        """Build one from transforms in any order; of several at one time the first counts."""
        times, first = np.unique(times_ns, return_index=True)
        return cls(parent, times, parent_T_child[first])

    def at(self, times_ns: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Interpolate: translations linearly, rotations on the shortest arc.

        Returns:
            (F, 4, 4) transforms, and (F,) whether there are poses near on both sides (or at that very time).
        """
        last = len(self.times_ns) - 1
        after = np.searchsorted(self.times_ns, times_ns).clip(0, last)
        before = np.where(self.times_ns[after] == times_ns, after, (after - 1).clip(0))
        start, stop = self.times_ns[before], self.times_ns[after]
        covered = (start <= times_ns) & (times_ns <= stop) & ((stop - start) * 1e-9 <= _LONGEST_GAP)
        poses = self.parent_T_child[after].copy()
        between = np.flatnonzero(covered & (start < stop))
        if len(between):
            # Relative to the first time: nanoseconds since 1970 are too long for float64.
            seconds = (self.times_ns - self.times_ns[0]) * 1e-9
            wanted = (times_ns[between] - self.times_ns[0]) * 1e-9
            share = (times_ns[between] - start[between]) / (stop[between] - start[between])
            a, b = self.parent_T_child[before[between]], self.parent_T_child[after[between]]
            poses[between, :3, 3] = a[:, :3, 3] + share[:, None] * (b[:, :3, 3] - a[:, :3, 3])
            slerp = Slerp(seconds, Rotation.from_matrix(self.parent_T_child[:, :3, :3]))
            poses[between, :3, :3] = slerp(wanted.clip(seconds[0], seconds[-1])).as_matrix()
        return poses, covered


@dataclass
class TransformTree:
    """Each frame's parent.

    Attributes:
        fixed: by child: parent and (4, 4) parent_T_child, valid for ever.
        moving: by child; it outranks a fixed one.
    """

    fixed: dict[str, tuple[str, NDArray[np.float64]]] = field(default_factory=dict)
    moving: dict[str, Motion] = field(default_factory=dict)

    def parents(self, frame: str) -> Iterator[str]:
        """Yield the frames above `frame`, the nearest first; stops where they go round in a circle."""
        seen = {frame}
        while True:
            if frame in self.moving:
                frame = self.moving[frame].parent
            elif frame in self.fixed:
                frame = self.fixed[frame][0]
            else:
                return
            if frame in seen:
                return
            seen.add(frame)
            yield frame

    def frames(self) -> list[str]:
        """Return every frame's name."""
        parents = [parent for parent, _ in self.fixed.values()] + [motion.parent for motion in self.moving.values()]
        return sorted({*self.fixed, *self.moving, *parents})

    def moves(self, frame: str, above: str) -> bool:
        """Tell whether anything between `frame` and the frame `above` it moves."""
        return any(child in self.moving for child in self._between(frame, above))

    def poses(
        self, frame: str, above: str, times_ns: NDArray[np.int64]
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Return (F, 4, 4) above_T_frame at times (nanoseconds), and (F,) where all of the motions are known."""
        result = np.tile(np.eye(4), (len(times_ns), 1, 1))
        known = np.ones(len(times_ns), dtype=bool)
        for child in self._between(frame, above):
            if child in self.moving:
                step, covered = self.moving[child].at(times_ns)
                known &= covered
            else:
                step = self.fixed[child][1]
            result = step @ result
        return result, known

    def static(self, frame: str, other: str) -> NDArray[np.float64] | None:
        """Return (4, 4) other_T_frame where fixed transforms alone connect the two; None where they do not."""
        up, down = self._fixed_chain(frame), self._fixed_chain(other)
        common = next((name for name in up if name in down), None)
        return None if common is None else np.asarray(np.linalg.inv(down[common]) @ up[common], dtype=np.float64)

    def _fixed_chain(self, frame: str) -> dict[str, NDArray[np.float64]]:
        """Return (4, 4) ancestor_T_frame by ancestor, `frame` included, as far up as nothing moves."""
        chain = {frame: np.eye(4)}
        transform = chain[frame]
        while frame in self.fixed and frame not in self.moving and self.fixed[frame][0] not in chain:
            parent, step = self.fixed[frame]
            transform = step @ transform
            chain[parent], frame = transform, parent
        return chain

    def _between(self, frame: str, above: str) -> list[str]:
        """Return the children on the way up from `frame` to `above`, which is above it."""
        way = [frame, *self.parents(frame)]
        return way[: way.index(above)]

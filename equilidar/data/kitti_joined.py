"""Several sources of labelled KITTI frames as one dataset."""

from typing import Any

from equilidar.data.kitti_frames import KittiFrames
from equilidar.data.listing import content_hash


class JoinedKittiFrames(KittiFrames):
    """The frames of each part, part after part.

    Raises:
        ValueError: no parts, parts with other classes or another crop, or a frame that is in two of them.
    """

    def __init__(self, parts: dict[str, KittiFrames]) -> None:
        """Join `parts`; their names say in configs which is which."""
        if not parts:
            raise ValueError("dataset.parts is empty")
        first = next(iter(parts.values()))
        for name, part in parts.items():
            if (part.class_names, part.camera_crop) != (first.class_names, first.camera_crop):
                raise ValueError(
                    f"dataset.parts.{name} has classes {part.class_names} and camera_crop {part.camera_crop}, the "
                    f"first part {first.class_names} and {first.camera_crop}; they must agree"
                )
        frames = [frame for part in parts.values() for frame in part.frames]
        if len({frame.key for frame in frames}) != len(frames):
            raise ValueError(f"dataset.parts {', '.join(parts)} share frames; each may be in one part only")
        super().__init__("kitti", frames, first.class_names, first.camera_crop)
        self._parts = parts

    def provenance(self) -> dict[str, Any]:
        """Return what identifies the data, by part."""
        parts = {name: part.provenance() for name, part in self._parts.items()}
        return {"name": self.name, "num_samples": len(self), "parts": parts, "hash": content_hash(parts)}

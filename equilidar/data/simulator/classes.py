"""What a point can lie on."""

SEMANTICS: tuple[str, ...] = (
    "Road",
    "Sidewalk",
    "Terrain",
    "Building",
    "Wall",
    "Fence",
    "Pole",
    "Sign",
    "Tree",
    "Bush",
    "Clutter",
    "Car",
    "Van",
    "Truck",
    "Pedestrian",
    "Cyclist",
)
BOXED: tuple[str, ...] = ("Car", "Van", "Truck", "Pedestrian", "Cyclist")

# Neighbours in the official KITTI evaluation: finding a van as a car is neither right nor wrong.
NEIGHBOURS: dict[str, str] = {"Van": "Car"}


def semantic_id(name: str) -> int:
    """Return the number of a semantic class.

    Raises:
        ValueError: there is no such class.
    """
    if name not in SEMANTICS:
        raise ValueError(f"unknown class {name!r}; the simulator has {', '.join(SEMANTICS)}")
    return SEMANTICS.index(name)

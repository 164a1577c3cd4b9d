"""Categories of Argoverse 2's annotations. Pair readers may not import this."""

# The 26 categories that are evaluated, the most frequent first as the data set's paper lists them.
EVALUATED_CATEGORIES = (
    "REGULAR_VEHICLE",
    "PEDESTRIAN",
    "BOLLARD",
    "CONSTRUCTION_CONE",
    "CONSTRUCTION_BARREL",
    "STOP_SIGN",
    "BICYCLE",
    "LARGE_VEHICLE",
    "WHEELED_DEVICE",
    "BUS",
    "BOX_TRUCK",
    "SIGN",
    "TRUCK",
    "MOTORCYCLE",
    "BICYCLIST",
    "VEHICULAR_TRAILER",
    "TRUCK_CAB",
    "MOTORCYCLIST",
    "DOG",
    "SCHOOL_BUS",
    "WHEELED_RIDER",
    "STROLLER",
    "ARTICULATED_BUS",
    "MESSAGE_BOARD_TRAILER",
    "MOBILE_PEDESTRIAN_CROSSING_SIGN",
    "WHEELCHAIR",
)
# Annotated, but too rare to be evaluated.
RARE_CATEGORIES = ("ANIMAL", "OFFICIAL_SIGNALER", "RAILED_VEHICLE", "TRAFFIC_LIGHT_TRAILER")
CATEGORIES = tuple(sorted((*EVALUATED_CATEGORIES, *RARE_CATEGORIES)))
"""What the data set annotates, in the order of the scene-flow benchmark's indices (which begin at 1)."""

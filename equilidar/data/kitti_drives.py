"""What is known of KITTI's recordings: which of them hold frames of its object detection set.

KITTI's 7481 labelled detection frames are copies of sweeps of its raw drives, and its odometry sequences are raw drives
as well.
"""

import re

_DRIVE = re.compile(r"(\d{4}_\d\d_\d\d_drive_\d{4})")

# Odometry sequence -> raw drive, from the readme of the KITTI odometry development kit ("Mapping to Raw Data").
ODOMETRY_DRIVES = {
    "00": "2011_10_03_drive_0027",
    "01": "2011_10_03_drive_0042",
    "02": "2011_10_03_drive_0034",
    "03": "2011_09_26_drive_0067",
    "04": "2011_09_30_drive_0016",
    "05": "2011_09_30_drive_0018",
    "06": "2011_09_30_drive_0020",
    "07": "2011_09_30_drive_0027",
    "08": "2011_09_30_drive_0028",
    "09": "2011_09_30_drive_0033",
    "10": "2011_09_30_drive_0034",
}

# The odometry benchmark's test sequences: by design no part of the published raw drives (J. Behley's answer to "Test
# Set 11-20" at github.com/PRBonn/semantic-kitti-api). Named after themselves, for their drives were never published.
ODOMETRY_TEST_SEQUENCES = {f"{number}": f"odometry test sequence {number}" for number in range(11, 22)}

# Labelled detection frames by day and drive: SHA-1 of every image of data_object_image_2.zip sought among all images of
# the published raw drives, as printed in main.ipynb of github.com/pwais/psegs-kitti-ext ("How well does the labeled
# data cover the segments?"). They add up to 7481, in 141 drives: each frame was found, so that a recording that is not
# listed here holds none.
_DETECTION_FRAMES = {
    "2011_09_26": (
        "0001:51 0002:6 0005:10 0009:287 0011:89 0013:23 0014:235 0015:215 0017:38 0018:154 0019:132 0020:14 0022:321 "
        "0023:258 0027:25 0028:131 0029:35 0032:187 0035:57 0036:240 0039:192 0046:28 0048:10 0051:112 0052:4 "
        "0056:197 0057:80 0059:178 0060:18 0061:275 0064:288 0070:72 0079:5 0084:175 0086:68 0087:96 0091:128 "
        "0093:194 0095:166 0096:243 0101:577 0104:152 0106:88 0113:5 0117:198"
    ),
    "2011_09_28": (
        "0001:65 0002:107 0016:9 0021:20 0034:3 0035:5 0037:21 0038:26 0039:24 0043:17 0045:21 0047:10 0053:11 0054:4 "
        "0057:11 0065:1 0066:1 0068:6 0070:1 0071:2 0075:5 0077:2 0078:2 0080:4 0082:11 0086:3 0087:10 0089:4 0090:4 "
        "0094:11 0095:4 0096:4 0098:4 0100:11 0102:4 0103:4 0104:4 0106:11 0108:4 0110:5 0113:11 0117:4 0119:11 "
        "0121:4 0122:4 0125:8 0126:2 0128:3 0132:10 0134:4 0135:3 0136:3 0138:2 0141:9 0143:3 0145:3 0146:11 0149:4 "
        "0153:13 0154:3 0155:4 0156:1 0160:3 0161:3 0162:4 0165:11 0166:3 0167:5 0168:6 0171:4 0174:6 0177:11 0179:4 "
        "0183:4 0184:12 0185:11 0186:3 0187:4 0191:4 0192:11 0195:3 0198:6 0199:4 0201:11 0204:3 0205:3 0208:3 "
        "0209:11 0214:3 0216:5 0220:6 0222:7"
    ),
    "2011_09_29": "0004:103 0026:47 0071:208",
    "2011_10_03": "0047:296",
}

DETECTION_FRAMES: dict[str, int] = {
    f"{day}_drive_{drive}": int(frames)
    for day, entries in _DETECTION_FRAMES.items()
    for drive, frames in (entry.split(":") for entry in entries.split())
}

# What is known of the 3712/3769 split (ImageSets/train.txt, val.txt). Chen et al. ("3D Object Proposals for Accurate
# Object Class Detection", NeurIPS 2015) cut it between video sequences: a drive is of one side as a whole. The 38
# drives with published tracklets stand by side in data/kitti_split1/determine_seqs.py of
# github.com/garrickbrazil/kinematic3d (Brazil et al., ECCV 2020). It does not say which list is which; that follows
# from what is known elsewhere, all of which agrees with the lists:
# - frames 001497 and 004587 are of drive 0052 and in val.txt; 000623, 001460, 002489, 005269, 006155 and 006920 are of
#   drive 0048 and in train.txt (mapping of the object development kit);
# - demos/kitti_obj/sequencing/match_raw_to_obj.py of github.com/kujason/scene_vis, which looks for stretches of
#   validation frames, lists one of 0014, and marks 0015 as "in training";
# - train.txt holds 56 sitting persons (OpenPCDet prints it of its database); of the three drives that hold any, 0091 is
#   the one with 56 (the data page of github.com/Dayallenr/Autonomous-Driving).
# The other 103 drives are listed nowhere that we know of.
_TRAINING = (
    "0001 0005 0011 0013 0015 0018 0019 0020 0027 0028 0029 0035 0036 0046 0048 0051 0056 0057 0059 0060 0061 0079 "
    "0084 0087 0091"
)
_VALIDATION = "0002 0009 0014 0017 0022 0023 0032 0039 0052 0064 0070 0086 0093"

TRAINING_DRIVES = frozenset(f"2011_09_26_drive_{number}" for number in _TRAINING.split())
VALIDATION_DRIVES = frozenset(f"2011_09_26_drive_{number}" for number in _VALIDATION.split())


def drive_of(name: str) -> str | None:
    """Return "2011_09_26_drive_0052" of a folder name like "2011_09_26_drive_0052_sync"; None if it is none."""
    match = _DRIVE.search(name)
    return match.group(1) if match else None


def odometry_recording(sequence: str) -> str | None:
    """Return the raw drive of an odometry sequence, or a name of its own for a test sequence; None for any other."""
    return ODOMETRY_DRIVES.get(sequence) or ODOMETRY_TEST_SEQUENCES.get(sequence)

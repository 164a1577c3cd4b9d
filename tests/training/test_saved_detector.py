from typing import Any

import pytest

from equilidar.checkpoint.detector import SavedDetector
from equilidar.data.simulator import SimulatedPairs
from equilidar.data.subsets import LabelledSubset
from equilidar.training.saved_detector import check_input


def test_pairs_can_neither_teach_a_detector_nor_judge_it() -> None:
    pairs: Any = SimulatedPairs(num_sequences=1, frames_per_sequence=1)
    with pytest.raises(ValueError, match="no labelled sweeps but pairs"):
        LabelledSubset(pairs)
    with pytest.raises(ValueError, match="no labelled sweeps but pairs"):
        check_input(SavedDetector({}, {}, ("Car",), pairs.contract, {}), pairs)

"""Spinning LiDARs: where their beams point and how they measure.

Elevation tables: HDL-64E and HDL-32E from Velodyne's user manuals (HDL-64E: upper block +2 to -8 1/3 degrees at 1/3
degree, lower block -8.83 to -24.33 at 1/2 degree); VLS-128 (Alpha Prime) from the calibration that ships with the
ros-drivers/velodyne package (velodyne_pointcloud/params/VLS128.yaml).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float64

from equilidar.structures import SensorContract


def _hdl64e() -> np.ndarray:
    upper = 2.0 - np.arange(32) / 3.0
    lower = -8.83 - np.arange(32) * 0.5
    return np.concatenate([upper, lower])


def _hdl32e() -> np.ndarray:
    return 32.0 / 3.0 - np.arange(32) * 4.0 / 3.0


def _vls128() -> np.ndarray:
    above = [15.0, 11.75, 9.7, 8.43, 7.58, 6.98, 6.48, 6.08, 5.73, 5.43, 5.18, 4.98]
    dense = 4.83 - np.arange(104) * 0.11
    below = [-6.65, -6.85, -7.15, -7.65, -8.352, -9.244, -10.346, -11.742, -13.565, -16.042, -19.582, -25.0]
    return np.concatenate([above, dense, below])


_ELEVATIONS: dict[str, Callable[[], np.ndarray]] = {"hdl64e": _hdl64e, "hdl32e": _hdl32e, "vls128": _vls128}
_MAX_RANGE = {"hdl64e": 120.0, "hdl32e": 100.0, "vls128": 200.0}


@dataclass(frozen=True)
class Sensor:
    """A spinning LiDAR, clockwise as seen from above, facing forward in the middle of a turn.

    Column c of C points at azimuth pi - (c + 0.5) * 2 pi / C, so that a range image shows the world as a
    driver sees it. All lasers of a column fire at once.

    Attributes:
        name: model name.
        elevation: beam elevations in degrees, rising.
        azimuth_steps: columns per turn.
        rate: turns per second.
        min_range, max_range: metres; nothing is returned outside.
        height: metres above the ground under the vehicle.
        range_noise: standard deviation of the range, metres.
        dropout: probability that a strong return is lost; 0 switches all loss of returns off.
        sensitivity: metres from which a white, frontal surface is still seen with probability 1 - 1/e. The signal
            goes with reflectance, cosine of the incidence and 1 / range^2.
        intensity_noise: standard deviation of the intensity.
        rolling_shutter: whether columns are measured one after the other while everything moves.
        packets: groups of columns that share one capture time, with rolling shutter (a Velodyne packet is alike).
    """

    name: str
    elevation: tuple[float, ...]
    azimuth_steps: int = 1024
    rate: float | int = 10.0
    min_range: float | int = 1.5
    max_range: float | int = 120.0
    height: float | int = 1.73
    range_noise: float | int = 0.02
    dropout: float | int = 0.03
    sensitivity: float | int = 470.0
    intensity_noise: float | int = 0.03
    rolling_shutter: bool = False
    packets: int = 64

    def __post_init__(self) -> None:
        if len(self.elevation) < 1 or np.any(np.diff(self.elevation) <= 0):
            raise ValueError(f"sensor.elevation must hold rising angles in degrees, got {self.elevation}")
        if self.azimuth_steps < 4:
            raise ValueError(f"sensor.azimuth_steps must be at least 4, got {self.azimuth_steps}")
        if not 0 <= self.min_range < self.max_range:
            raise ValueError(f"sensor: need 0 <= min_range < max_range, got {self.min_range} and {self.max_range}")
        if self.rate <= 0 or self.packets < 1:
            raise ValueError(f"sensor: rate and packets must be positive, got {self.rate} and {self.packets}")
        for name in ("range_noise", "dropout", "intensity_noise"):
            if getattr(self, name) < 0:
                raise ValueError(f"sensor.{name} must not be negative, got {getattr(self, name)}")

    @property
    def beams(self) -> int:
        return len(self.elevation)

    @property
    def period(self) -> float:
        """Seconds per turn."""
        return 1.0 / self.rate

    @property
    def contract(self) -> SensorContract:
        """What the sweeps' feature columns mean."""
        if self.rolling_shutter:
            return SensorContract(("intensity", "time"), (1.0, 1.0), "sensor")
        return SensorContract(("intensity",), (1.0,), "sensor")

    def azimuth(self) -> Float64[np.ndarray, " C"]:
        """Return the azimuth of each column, radians, falling from pi to -pi."""
        step = 2 * np.pi / self.azimuth_steps
        return np.pi - (np.arange(self.azimuth_steps) + 0.5) * step

    def noise_free(self) -> "Sensor":
        """Return the same sensor without noise, loss of returns and rolling shutter."""
        return replace(self, range_noise=0.0, dropout=0.0, intensity_noise=0.0, rolling_shutter=False)


def make_sensor(
    name: str = "hdl64e",
    *,
    azimuth_steps: int = 1024,
    beam_stride: int = 1,
    max_range: float | int | None = None,
    rolling_shutter: bool = False,
    rate: float | int = 10.0,
    range_noise: float | int = 0.02,
    dropout: float | int = 0.03,
    intensity_noise: float | int = 0.03,
    height: float | int = 1.73,
) -> Sensor:
    """Build a sensor by model name.

    Args:
        name: "hdl64e" (64 beams, +2 to -24.33 degrees), "hdl32e" (32, +10.67 to -30.67) or "vls128"
            (128, +15 to -25, 0.11 degrees apart near the horizon).
        azimuth_steps: columns per turn; the HDL-64E at 10 Hz has about 2083.
        beam_stride: keep every n-th beam, counted from the top (a cheaper sensor of the same field of view).
        max_range: metres; the model's own where None.
        rolling_shutter: measure columns one after the other; adds the channel "time".
        rate: turns per second.
        range_noise: standard deviation of the range, metres.
        dropout: probability that a strong return is lost; 0 switches all loss of returns off.
        intensity_noise: standard deviation of the intensity.
        height: metres above the ground.

    Raises:
        ValueError: unknown name, or a value out of its range.
    """
    if name not in _ELEVATIONS:
        raise ValueError(f"sensor name must be one of {sorted(_ELEVATIONS)}, got {name!r}")
    if beam_stride < 1:
        raise ValueError(f"beam_stride must be at least 1, got {beam_stride}")
    kept = _ELEVATIONS[name]()[::beam_stride]
    return Sensor(
        name=name,
        elevation=tuple(float(angle) for angle in kept[::-1]),
        azimuth_steps=azimuth_steps,
        rate=rate,
        max_range=_MAX_RANGE[name] if max_range is None else max_range,
        height=height,
        range_noise=range_noise,
        dropout=dropout,
        intensity_noise=intensity_noise,
        rolling_shutter=rolling_shutter,
    )

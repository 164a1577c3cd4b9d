"""Several sweeps as one: earlier ones moved into the newest one's frame, with the time of each point."""

from collections.abc import Sequence

import torch

from equilidar.structures import SensorContract, Sweep

# One second before the sweep's time stamp is stored as 1.0: the positive time lag that nuScenes's devkit, OpenPCDet and
# mmdetection3d feed to their networks.
LAG_SCALE = -1.0


def accumulated_contract(contract: SensorContract) -> SensorContract:
    """Return what the channels of accumulated sweeps mean: those of single ones and `time`, if they have none."""
    if "time" in contract.channels:
        return contract
    return SensorContract((*contract.channels, "time"), (*contract.scales, LAG_SCALE), contract.frame)


def accumulate(sweeps: Sequence[Sweep]) -> Sweep:
    """Join a sweep with those before it.

    Static points of all sweeps then lie where the first one would see them; what moves leaves a trail.

    Args:
        sweeps: the sweep itself, then earlier ones, the newest first. All but a lone one need poses.

    Returns:
        The first sweep, its own points first. Channel `time` holds seconds after its time stamp, divided by the
        contract's scale like every channel; where the sweeps bring a time for each point, that is kept in it.

    Raises:
        ValueError: no sweep, contracts that differ, or a pose that is missing.
    """
    if not sweeps:
        raise ValueError("accumulate: no sweeps")
    newest = sweeps[0]
    contract = accumulated_contract(newest.contract)
    column = contract.channels.index("time")
    xyz, features = [], []
    for sweep in sweeps:
        if sweep.contract != newest.contract:
            raise ValueError(f"accumulate: {sweep.key} has {sweep.contract}, {newest.key} has {newest.contract}")
        values = sweep.features
        if column == values.shape[1]:
            values = torch.cat([values, values.new_zeros(len(values), 1)], 1)
        else:
            values = values.clone()
        values[:, column] += (sweep.timestamp - newest.timestamp) / contract.scales[column]
        features.append(values)
        xyz.append(sweep.xyz if sweep is newest else _moved(sweep, newest))
    return Sweep(torch.cat(xyz), torch.cat(features), contract, newest.key, newest.timestamp, newest.world_T_sensor)


def _moved(sweep: Sweep, newest: Sweep) -> torch.Tensor:
    if sweep.world_T_sensor is None or newest.world_T_sensor is None:
        raise ValueError(f"accumulate: {sweep.key} and {newest.key} need poses")
    motion = torch.linalg.inv(newest.world_T_sensor) @ sweep.world_T_sensor
    return (sweep.xyz.double() @ motion[:3, :3].T + motion[:3, 3]).float()

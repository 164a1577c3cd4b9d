"""Where scene flow comes from: estimators behind one protocol, and a cache for what they gave."""

from equilidar.flow.binding import bound
from equilidar.flow.cache import FlowCache, precompute
from equilidar.flow.exact import ExactFlow
from equilidar.flow.feedforward import FeedforwardFlow
from equilidar.flow.grid_flow import GridFlow
from equilidar.flow.grid_flow_multi import GridFlowMulti
from equilidar.flow.icp_flow import IcpFlow
from equilidar.flow.nearest import NearestFlow
from equilidar.flow.precomputed import PrecomputedFlow
from equilidar.flow.protocol import FlowEstimator, check_label_free, check_teacher, settings_of
from equilidar.flow.rigid import RigidFlow
from equilidar.flow.shuffled import ShuffledFlow
from equilidar.flow.zero import ZeroFlow

__all__ = [
    "ExactFlow",
    "FeedforwardFlow",
    "FlowCache",
    "FlowEstimator",
    "GridFlow",
    "GridFlowMulti",
    "IcpFlow",
    "NearestFlow",
    "PrecomputedFlow",
    "RigidFlow",
    "ShuffledFlow",
    "ZeroFlow",
    "bound",
    "check_label_free",
    "check_teacher",
    "precompute",
    "settings_of",
]

"""Engines: images to features on one kind of hardware or library."""

from sparse_transfer.inference import torch as _torch  # registers its engines
from sparse_transfer.inference.engine import Availability, Compiled, Engine, Numerics, Plan, PlanNode, engine, engines

__all__ = ["Availability", "Compiled", "Engine", "Numerics", "Plan", "PlanNode", "engine", "engines"]

del _torch

"""REINFORCE as one reusable module, at work in attention, inference and control."""

__version__ = "0.1.0"

"""The version, where every floor can read it. Imports nothing."""

__version__ = "0.1.0"

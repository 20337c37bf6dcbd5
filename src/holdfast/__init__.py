"""Holdfast: tune, measure and prompt language models so that they hold when the wording changes."""

__version__ = "0.1.0"

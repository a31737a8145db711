"""Measurements of speed and memory; scripts, never a gate."""

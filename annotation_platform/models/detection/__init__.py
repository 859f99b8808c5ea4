"""Detectors: networks, training, tiling, calibration, custom models."""

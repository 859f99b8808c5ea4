"""Classifiers of whole images: network, training, calibration, metrics."""

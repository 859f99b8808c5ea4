"""Detectors and classifiers: training, prediction, evaluation, and the registry of weights.

The only package that imports torch, and only for training and prediction: importing any of its
modules except ``networks``, ``samples`` and those of weight files leaves torch unimported.
"""

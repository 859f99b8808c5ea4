"""Evaluation of models: average precision, slices, errors, label noise, promotion."""

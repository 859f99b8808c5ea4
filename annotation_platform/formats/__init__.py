"""Annotation formats, one module each: ``read_x``, ``write_x``, ``x_losses`` and ``HOLDS``."""

"""Annotation formats, one module each: ``read_x``, ``render_x``, ``x_losses`` and ``HOLDS``."""

"""One file per annotation format: ``read_x(folder)`` and ``write_x(dataset, folder)``."""

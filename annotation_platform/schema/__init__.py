"""What the data look like: boxes, classes, tables, datasets and rounds."""

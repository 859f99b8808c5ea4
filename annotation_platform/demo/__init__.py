"""The demonstration: images with exact ground truth, simulated annotators, real servers."""

"""The demonstration: images with exact truth, simulated people, real servers."""

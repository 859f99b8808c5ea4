"""The demonstration: pictures with exact truth, simulated people, real servers."""

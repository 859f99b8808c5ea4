"""The detector: learning, proposing, measuring, and the registry of weights.

The only package that imports torch, and only where something is learned or proposed: importing
any module of it but ``networks`` and ``weight_files`` leaves torch unimported.
"""

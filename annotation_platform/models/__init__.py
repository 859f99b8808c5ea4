"""The detector: learning, proposing, measuring, and the registry of weights.

The only package that imports torch, and only where something is learned or proposed: importing
any module of it but ``networks``, ``samples`` and the files of weights leaves torch unimported.
"""

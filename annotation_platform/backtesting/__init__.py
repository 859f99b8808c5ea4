"""Replay of recorded annotations under another policy."""

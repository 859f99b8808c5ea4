"""Sensors and schedules that request runs. A tick only reads, except for a new round's manifest.

Each sensor compares states of the lake and does not rely on events: the next tick recovers from
missed, repeated and interrupted runs. ``sensors/attempts.py`` prevents a second run for a cause.
"""

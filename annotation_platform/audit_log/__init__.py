"""The audit log of a lake: events with actor, time and reason, and the check of both logs."""

"""Questions to a published version: what changed since another one, and why."""

"""What was done, by whom, when and why: the events of a lake, and the check of both audit logs."""

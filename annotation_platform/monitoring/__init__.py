"""Alerts about failures, drift and stalled rounds, by log, webhook, Slack or e-mail, once each."""

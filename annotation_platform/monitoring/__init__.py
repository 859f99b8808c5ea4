"""Telling somebody what they have to see: by the log, a webhook, Slack or e-mail, once each."""

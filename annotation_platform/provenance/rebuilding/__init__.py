"""Making a published version again, from ledger and lake and by its own code."""

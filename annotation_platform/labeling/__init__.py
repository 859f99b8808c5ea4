"""Rounds of questions to people: tasks, answers, the append-only ledger, Label Studio."""

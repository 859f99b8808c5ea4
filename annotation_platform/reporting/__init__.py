"""Previews and reports for people."""

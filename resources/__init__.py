"""The library's adapters, built from settings. Resources hold no logic."""

"""The servers a machine of one's own runs: Label Studio, Dagster's webserver and its daemon."""

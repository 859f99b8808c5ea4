"""The servers of a single machine: Label Studio, Dagster's webserver and its daemon."""

"""The partition of all assets: rounds, which the landing sensor adds."""

import dagster as dg

rounds = dg.DynamicPartitionsDefinition(name="rounds")

"""The one dimension of everything: rounds, which the landing sensor adds."""

import dagster as dg

rounds = dg.DynamicPartitionsDefinition(name="rounds")

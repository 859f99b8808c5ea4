"""The address of the platform's own pages, for links in the Dagster UI."""

import dagster as dg


class PagesResource(dg.ConfigurableResource["PagesResource"]):
    """The address of reports and cards; empty if no server serves them."""

    url: str

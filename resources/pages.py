"""The address of the platform's own pages, for links in the Dagster UI."""

import dagster as dg


class PagesResource(dg.ConfigurableResource["PagesResource"]):
    """The address of reports and cards; empty if no server serves them."""

    url: str

    def links(self, **paths: str) -> dict[str, dg.UrlMetadataValue]:
        """Return metadata with a link for each path; empty if no server serves pages."""
        if not self.url:
            return {}
        return {name: dg.MetadataValue.url(f"{self.url}/{path}") for name, path in paths.items()}

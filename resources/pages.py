"""Where the platform's own pages are, for links in the Dagster UI."""

import dagster as dg


class PagesResource(dg.ConfigurableResource["PagesResource"]):
    """Gives the addresses of reports and cards; empty where nothing serves them."""

    url: str

    def links(self, **paths: str) -> dict[str, dg.UrlMetadataValue]:
        """Return metadata with a link for each path; nothing where no page is served."""
        if not self.url:
            return {}
        return {name: dg.MetadataValue.url(f"{self.url}/{path}") for name, path in paths.items()}

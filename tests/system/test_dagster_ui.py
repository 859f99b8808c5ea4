"""What people find and do in the Dagster UI, in a real browser, after two rounds."""

import json
import time

import httpx
import pytest

from annotation_platform.definitions import defs
from annotation_platform.demo.material import drawn_material
from annotation_platform.demo.narrator import Narrator
from annotation_platform.demo.run import DemoOptions, run_demo
from tests.system.chromium import INSTALL, chromium, chromium_program

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(900),
    pytest.mark.skipif(chromium_program() is None, reason=f"a browser is needed: {INSTALL}"),
]

ASSETS = {spec.key.to_user_string(): spec for asset in defs.assets for spec in asset.specs}
MATERIALIZED = """
query Materialized($key: AssetKeyInput!) { assetOrError(assetKey: $key) { ... on Asset {
  assetMaterializations(limit: 10) { partition metadataEntries { label __typename
    ... on MarkdownMetadataEntry { mdStr } ... on UrlMetadataEntry { url }
    ... on JsonMetadataEntry { jsonString } ... on TextMetadataEntry { text } } } } } }
"""
BACKFILLS = """
{ partitionBackfillsOrError { ... on PartitionBackfills { results {
  status numPartitions assetSelection { path } } } } }
"""
ROUNDS = ["round-0001", "round-0002"]


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """What a browser found while the servers of a demonstration were up."""
    folder = tmp_path_factory.mktemp("ui")
    material = drawn_material(2, 8, seed=5)
    options = DemoOptions(
        home=folder / "home", labeling="simulated", seed=5, training_cpu_seconds=4, image_width=160
    )
    found = {}

    def look(result):
        found["materialized"] = {
            name: materializations(result.dagster_url, name) for name in ASSETS
        }
        with chromium(folder / "profile") as browser, browser.page(height=1100) as page:
            found["pages"] = {name: asset_page(page, result.dagster_url, name) for name in ASSETS}
            found["graph"] = graph_page(page, result.dagster_url, folder / "graph.png")
            found["plots"] = plots_of(page, result.dagster_url, folder / "plots.png")
            found["backfill"] = backfill(page, result.dagster_url, folder / "backfill.png")
        found["again"] = materializations(result.dagster_url, "round_report")
        links = [
            entry["url"]
            for entries in found["materialized"].values()
            for each in entries
            for entry in each["metadataEntries"]
            if "url" in entry
        ]
        found["links"] = {link: httpx.get(link).status_code for link in links}

    with Narrator() as narrator:
        run_demo(lambda: material, options, narrator, finished=look)
    return found


def query(url, text, **variables):
    response = httpx.post(
        f"{url}/graphql", json={"query": text, "variables": variables}, timeout=60
    )
    return response.json()["data"]


def materializations(url, name):
    return query(url, MATERIALIZED, key={"path": [name]})["assetOrError"]["assetMaterializations"]


def button(text):
    return f"[...document.querySelectorAll('button')].find(b => b.innerText.trim() === '{text}')"


def asset_page(page, url, name):
    page.go(f"{url}/assets/{name}")
    page.wait_for(
        "['Metadata', 'Columns'].every(part => document.body.innerText.includes(part))"
        " && !!document.querySelector('td')"
    )
    page.wait_until_still("document.body.innerText")
    return page.evaluate("document.body.innerText")


def graph_page(page, url, image):
    page.go(f"{url}/asset-groups")
    page.wait_for("document.body.innerText.includes('reporting')")
    page.wait_until_still("document.body.innerText")
    page.screenshot(image)
    return page.evaluate("document.body.innerText")


def plots_of(page, url, image):
    page.go(f"{url}/assets/model_evaluation")
    page.click(button("Plots"))
    page.wait_for("document.querySelectorAll('canvas').length > 2")
    page.screenshot(image)
    return page.evaluate("document.body.innerText")


def backfill(page, url, image):
    """Launch the report of all rounds anew by hand, and return what became of it."""
    page.go(f"{url}/assets/round_report")
    page.click(button("Materialize…"))
    page.click(button("All"))
    page.wait_for("document.body.innerText.includes('2 partitions')")
    page.screenshot(image)
    page.click(button("Launch backfill"))
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        results = query(url, BACKFILLS)["partitionBackfillsOrError"]["results"]
        if results and results[0]["status"] not in {"REQUESTED", "CANCELING"}:
            return results[0]
        time.sleep(0.5)
    raise TimeoutError(results)


def test_every_asset_says_what_it_is_whose_and_what_it_holds(seen):
    for name, spec in ASSETS.items():
        shown = seen["pages"][name]
        said = spec.description.replace("`", "")
        assert " ".join(said.split()) in " ".join(shown.split()), name
        assert spec.owners[0].removeprefix("team:") in shown, name
        for part in ("Columns", "round_id", "Kinds"):
            assert part in shown, (name, part)
        entries = {each["label"] for each in seen["materialized"][name][0]["metadataEntries"]}
        assert entries - {"rows", "table_digest"}, name
        assert "Error" not in shown, (name, shown[max(0, shown.find("Error") - 200) :][:400])


def test_the_graph_has_every_group(seen):
    for group in {spec.group_name for spec in ASSETS.values()}:
        assert group in seen["graph"]


def test_what_people_look_for_is_there_and_small(seen):
    images = {
        "cleaned_images", "model_predictions", "human_labels", "consensus_labels", "label_issues",
        "reviewed_labels", "training_set",
    }  # fmt: skip
    for name, runs in seen["materialized"].items():
        assert sorted({each["partition"] for each in runs}) == ROUNDS, name
        for each in runs:
            assert len(json.dumps(each)) < 100_000, name
        if name in images:
            text = "".join(entry.get("mdStr", "") for entry in runs[0]["metadataEntries"])
            assert "data:image/jpeg;base64," in text, name


def test_links_lead_to_the_report_and_the_card(seen):
    assert any("/rounds/round-0002" in link for link in seen["links"])
    assert any("/card.html" in link for link in seen["links"])
    assert set(seen["links"].values()) == {200}


def test_figures_are_plotted_over_rounds(seen):
    for figure in ("map50", "test_images", "agreement_with_annotators"):
        assert figure in seen["plots"]


def test_a_person_materialises_all_rounds_anew_from_the_form(seen):
    assert seen["backfill"] == {
        "status": "COMPLETED_SUCCESS",
        "numPartitions": 2,
        "assetSelection": [{"path": ["round_report"]}],
    }
    assert len(seen["again"]) == len(seen["materialized"]["round_report"]) + 2

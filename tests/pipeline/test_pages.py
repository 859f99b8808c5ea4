"""The report of a round, and the page of all rounds over HTTP."""

import json
import re
from html import unescape
from http.client import HTTPConnection

import httpx
import pytest
from typer.testing import CliRunner

from annotation_platform.cli import app
from annotation_platform.labeling.ledger import AnnotationsLedger
from annotation_platform.labeling.reviews import review_round
from annotation_platform.policy import read_policy
from annotation_platform.reporting.advice import advise
from annotation_platform.reporting.round_facts import round_facts, round_trends
from annotation_platform.reporting.round_page import render_round
from annotation_platform.schema.tables import HumanLabels, LabelTasks, ReviewedLabels, RoundReports
from annotation_platform.servers.front_page import front_page
from tests.pipeline.conftest import open_platform

HOSTILE = '<img src=x onerror=alert(1)>".jpg'


@pytest.fixture(scope="module")
def worked(tmp_path_factory):
    """A platform with a published round and one without annotations."""
    with open_platform(tmp_path_factory.mktemp("pages") / "home") as platform:
        platform.land(1)
        (platform.settings.landing_path / HOSTILE).write_bytes(b"no image")
        platform.start_round("round-0001")
        platform.annotate("round-0001")
        assert platform.release("round-0001", platform.merge("round-0001")).success
        assert platform.run("train_model", "round-0001").success
        platform.land(2)
        platform.start_round("round-0002")
        yield platform


@pytest.fixture
def pages(worked):
    with front_page(worked.settings) as page, httpx.Client(base_url=page.url) as client:
        yield client


def text_of(page):
    """Return the visible text of a page."""
    return " ".join(
        unescape(re.sub(r"<(style|svg).*?</\1>|<[^>]+>", " ", page, flags=re.S)).split()
    )


def report(platform, round_id):
    return render_round(platform.lake, round_id, read_policy(platform.settings.policy_path))


def test_the_report_counts_what_the_tables_hold(worked):
    tables, lake = worked.lake.tables, worked.lake
    annotations = tables.read(HumanLabels, "round-0001").drop_duplicates("annotation_id")
    reviewed = tables.read(ReviewedLabels, "round-0001")
    publishable = reviewed[
        ~reviewed["decision"].isin(["rejected", "undecided"])
        & ~reviewed["shape"].isin(["none", "unsure"])
    ]
    decided = len(AnnotationsLedger(lake.store).read(review_round("round-0001")))
    facts = round_facts(lake, "round-0001")
    assert {each.stage: each.actions for each in facts.manual_effort} == {
        "restored from quarantine": 0,
        "annotations": len(annotations),
        "reviews": decided,
        "closed, cancelled or reopened": 0,
    }
    assert (facts.labels, facts.version) == (len(publishable), "1.0.0")
    assert sum(facts.outcomes.values()) == len(lake.manifests.read("round-0001"))
    seconds = facts.minutes * 60 / facts.labels
    assert round_trends(lake, facts)[1].values == {"round-0001": pytest.approx(seconds)}
    row = tables.read(RoundReports, "round-0001").iloc[0]
    assert (row["manual_actions"], row["labels"]) == (facts.actions, facts.labels)
    assert row["minutes"] == pytest.approx(facts.minutes)
    shown = text_of(report(worked, "round-0001"))
    assert f"{seconds:.1f} s of manual effort per label" in shown
    assert f"annotations {len(annotations)} " in shown
    for one in facts.people:
        assert one["annotator"] in shown


def test_the_report_is_one_page_that_loads_and_runs_nothing(worked):
    page = report(worked, "round-0001")
    assert "default-src 'none'; img-src data:; style-src 'sha256-" in page
    assert not re.search(r"<script|<link|@import|javascript:|<[^>]*\son\w+=|url\(", page)
    assert set(re.findall(r'(?:src|href)="([^"]{5})', page)) == {"data:"}
    # Names chosen by users are text, even if they look like markup.
    assert "<img src=x" not in page
    assert HOSTILE in text_of(page)


def test_the_advice_follows_from_the_figures(worked):
    facts = round_facts(worked.lake, "round-0001")
    share = f"{facts.outcomes['quarantined']} of {sum(facts.outcomes.values())}"
    advice = {each.action: each.reason for each in advise(facts)}
    assert share in advice["Check the source of these images."]
    assert "Review a sample of the undisputed images." in advice
    open_round = advise(round_facts(worked.lake, "round-0002"))
    assert "Review a sample of the undisputed images." not in {each.action for each in open_round}


def test_an_unfinished_round_has_a_report_too(worked):
    shown = text_of(report(worked, "round-0002"))
    assert "No version yet. Waits for people." in shown
    assert " 0 annotations" in shown


def test_one_page_lists_all_rounds_and_what_they_wait_for(worked, pages):
    response = pages.get("/")
    shown = text_of(response.text)
    assert re.search(r"round-0002 people .*round-0001 –", shown)
    assert f"0 of {len(worked.lake.tables.read(LabelTasks, 'round-0002'))}" in shown
    links = re.findall(r'href="([^"]+)"', response.text)
    assert {"/rounds/round-0001", "/rounds/round-0002", "/versions/1.0.0/card.html"} <= set(links)
    for link in links:
        assert pages.get(link).status_code == 200, link


def test_the_card_of_a_version_shows_its_images(pages):
    card = pages.get("/versions/1.0.0/card.html").text
    image = re.search(r'<img src="(images/[^"]+)"', card)[1]
    response = pages.get(f"/versions/1.0.0/{image}")
    assert response.headers["content-type"] == "image/jpeg"
    assert response.content.startswith(b"\xff\xd8")


@pytest.mark.parametrize(
    "path",
    [
        "/rounds/round-0009",
        "/rounds/..%2f..%2fparams.yaml",
        "/versions/9.9.9/card.html",
        "/versions/1.0.0/../../secrets.json",
        "/versions/1.0.0/data.yaml",
        "/versions/--help/card.html",
        "/etc/passwd",
    ],
)
def test_an_unknown_path_is_not_found(pages, path):
    # httpx would normalise the path before it is sent.
    connection = HTTPConnection(pages.base_url.host, pages.base_url.port)
    connection.request("GET", path)
    response = connection.getresponse()
    assert response.status == 404
    assert b"Traceback" not in response.read()
    connection.close()


@pytest.mark.parametrize("host", ["example.org", "127.0.0.1", "127.0.0.1:1", "localhost.org"])
def test_a_request_of_another_host_is_refused(pages, host):
    response = pages.get("/", headers={"Host": host})
    assert response.status_code == 403
    assert "round-0001" not in response.text


def test_pages_can_only_be_read_and_not_framed_or_stored(pages):
    assert pages.post("/").status_code == 405
    headers = pages.get("/").headers
    assert headers["x-frame-options"] == "DENY"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"


def test_the_report_is_written_by_a_command(worked, tmp_path, monkeypatch):
    monkeypatch.setenv("ANNOTATION_HOME", str(worked.settings.home_path))
    file = tmp_path / "report.html"
    done = CliRunner().invoke(app, ["round", "report", "round-0001", "--out", str(file), "--json"])
    assert json.loads(done.stdout) == {"round": "round-0001", "file": str(file)}
    assert text_of(file.read_text()) == text_of(report(worked, "round-0001"))

"""The card as a reader's browser shows it, straight from the pulled folder."""

import io

import pytest
from PIL import Image

from annotation_platform.schema.shapes import Label
from annotation_platform.versioning.folder import build_folder
from tests.system.chromium import INSTALL, chromium, chromium_program
from tests.system.worlds import World

pytestmark = [pytest.mark.browser]

WIDTH, HEIGHT = 320, 240


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if chromium_program() is None:
        pytest.skip(f"there is no Chromium: {INSTALL}")
    with chromium(tmp_path_factory.mktemp("chromium")) as running:
        yield running


@pytest.fixture
def folder(tmp_path):
    """The folder of a version of four images, each with a box in its lower right quarter."""
    world = World(tmp_path)
    for number in range(4):
        data = io.BytesIO()
        Image.new("RGB", (WIDTH, HEIGHT), (90, 60 * number, 110)).save(data, "PNG")
        box = Label.box("ball", WIDTH / 2, HEIGHT / 2, WIDTH, HEIGHT)
        world.add_image(data.getvalue(), "png", WIDTH, HEIGHT, [box])
    made = build_folder(world.table, world.ontology, name="training-set")
    files = dict(made.texts)
    for image in made.images:
        files[image.path] = (tmp_path / "lake" / f"{image.image_id}.png").read_bytes()
    for path, data in files.items():
        place = tmp_path / "pulled" / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
    return tmp_path / "pulled"


@pytest.mark.parametrize("width", [375, 1200])
def test_images_and_labels_are_seen_and_nothing_else_is_allowed(browser, folder, width):
    with browser.page(width=width, height=900) as page:
        page.go((folder / "card.html").as_uri())
        # They are fetched as they come into sight.
        page.evaluate("document.querySelectorAll('img').forEach(each => each.loading = 'eager')")
        page.wait_for("[...document.images].every(each => each.complete)")
        sizes = page.evaluate("[...document.images].map(e => [e.naturalWidth, e.naturalHeight])")
        assert sizes == [[WIDTH, HEIGHT]] * 4
        quarters = page.evaluate(
            "[...document.querySelectorAll('figure')].map(figure => {"
            " const all = figure.querySelector('img').getBoundingClientRect();"
            " const one = figure.querySelector('path.mark').getBoundingClientRect();"
            " return [(one.x - all.x) / all.width, (one.y - all.y) / all.height,"
            "  one.width / all.width, one.height / all.height]; })"
        )
        for quarter in quarters:
            assert quarter == pytest.approx([0.5, 0.5, 0.5, 0.5], abs=0.01)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        styled = "getComputedStyle(document.querySelector('.image svg')).position"
        assert page.evaluate(styled) == "absolute"
        refused = page.evaluate(
            "new Promise(done => {"
            " document.addEventListener('securitypolicyviolation',"
            "  event => done(event.effectiveDirective));"
            " const image = new Image(); image.src = 'http://127.0.0.1:9/x.png';"
            " document.body.append(image); })"
        )
        assert refused == "img-src"

"""What somebody who may log in can fetch from a real Label Studio where something is masked."""

import re
import shutil
import subprocess

import httpx
import numpy as np
import pytest

from annotation_platform.errors import LabelingError
from annotation_platform.images.decoding import decode
from annotation_platform.ingestion.lake import lake_of
from annotation_platform.labeling.backends.label_studio.client import LabelStudioClient
from annotation_platform.labeling.backends.label_studio.image_sources import (
    image_source,
    shown_source,
)
from annotation_platform.labeling.backends.label_studio.people import add_person
from annotation_platform.labeling.backends.label_studio.running import running_label_studio
from annotation_platform.labeling.backends.protocol import Replica
from annotation_platform.labeling.backends.registry import labeling_of
from annotation_platform.labeling.shown_images import ShownImages
from annotation_platform.policy import MaskingPolicy, Policy
from annotation_platform.schema.keys import image_key
from annotation_platform.servers.child import usable_port
from annotation_platform.servers.up import serve
from annotation_platform.settings import Settings
from tests.core.labeling.outside import ONTOLOGY, ROUND, image_id
from tests.core.labeling.test_shown_images import MASKED, box, fill_lake, image_file, knows, look

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

MASKING = MaskingPolicy(classes=("face",), margin=0.25)


@pytest.fixture
def settings(label_studio_template, tmp_path):
    """A deployment that masks faces, with a prepared database so that it boots soon."""
    registry, data = tmp_path / "registry", tmp_path / "home" / "label-studio"
    for arguments in (
        ["init", "--quiet", "--initial-branch=main", str(registry)],
        ["-C", str(registry), "config", "user.name", "Ada"],
        ["-C", str(registry), "config", "user.email", "ada@example.org"],
        ["-C", str(registry), "commit", "--quiet", "--allow-empty", "-m", "Begin"],
    ):
        subprocess.run(["git", *arguments], check=True)
    data.mkdir(parents=True)
    shutil.copy(label_studio_template / "label_studio.sqlite3", data)
    policy = Policy(ontology=ONTOLOGY, masking=MASKING)
    (tmp_path / "home" / "params.yaml").write_text(policy.to_yaml())
    return Settings(home=tmp_path / "home", registry=str(registry))


def copies(keys):
    return [
        Replica(f"task-{image}", image, 1, "", image_key=key, width=320, height=240)
        for image, key in sorted(keys.items())
    ]


def member_of(url, token, name="ada"):
    """Return what somebody who labels can ask the server."""
    member = add_person(url, token, f"{name}@example.org")
    signed = {"Authorization": f"Token {member.token}"}
    return httpx.Client(base_url=url, headers=signed, trust_env=False, timeout=60)


def ways_to(lake, image):
    """Return addresses by which somebody might try to get an original."""
    key = image_key(image, "png")
    return [key, f"/{key}", f"../{key}", f"images/../../{key}", f"{lake}/{key}", f"lake/{key}"]


def test_people_get_what_is_masked_and_have_no_way_to_the_original(settings):
    lake = lake_of(settings)
    fill_lake(lake)
    look(lake, [box(0)], [0, 1])
    policy = Policy(ontology=ONTOLOGY, masking=MASKING)
    images = [image_id(0), image_id(1)]

    def watch(dagster):
        url, token = running_label_studio(settings)
        client = labeling_of(settings, lake.store, policy)
        keys = ShownImages(lake, MASKING, knows).keys(images)
        ids = client.publish(ROUND, ONTOLOGY, copies(keys))
        with member_of(url, token) as member:
            for number, image in enumerate(images):
                address = _address(member, ids[f"task-{image}", 1])
                seen = member.get(address)
                assert seen.status_code == 200
                same = (decode(seen.content) == decode(image_file(number))).all(axis=-1)
                assert (same[MASKED].mean() < 0.01) == (number == 0)
                same[MASKED] = True
                assert same.all()
                assert httpx.get(url + address, trust_env=False).status_code in {401, 403}
                for way in ways_to(settings.lake_path, image):
                    tried = member.get("/data/local-files/", params={"d": way})
                    assert tried.status_code != 200, way
            # Any member may make storage records: what they cannot reach is what counts.
            project = int(re.search(r"/projects/(\d+)/", client.round_url(ROUND)).group(1))
            for folder in ("images", "raw", "shown/../images"):
                record = {"project": project, "path": str(settings.lake_path / folder)}
                made = member.post("/api/storages/localfiles/", json=record)
                assert made.status_code == 400, folder
            assert (
                member.get(
                    "/data/local-files/", params={"d": f"images/{images[0]}.png"}
                ).status_code
                == 404
            )
            _check_that_other_masks_are_shown(lake, client, member, ids, images)
        # An unmasked round would show originals: this server cannot.
        bare = {image: image_key(image, "png") for image in images}
        with pytest.raises(LabelingError, match=f"DOCUMENT_ROOT={settings.lake_path}"):
            client.publish("round-0002", ONTOLOGY, copies(bare))

    ports = {name: usable_port(0, remedy="") for name in ("port", "label_studio_port", "page_port")}
    serve(settings, say=print, forever=watch, **ports)


def _address(member, task):
    return member.get(f"/api/tasks/{task}/").json()["data"]["image"]


def _check_that_other_masks_are_shown(lake, client, member, ids, images):
    """Publish the same round with other masks: its tasks stay, and show them."""
    grey = ShownImages(lake, MASKING.model_copy(update={"style": "grey"}), knows).keys(images)
    assert client.publish(ROUND, ONTOLOGY, copies(grey)) == ids
    seen = decode(member.get(_address(member, ids[f"task-{images[0]}", 1])).content)
    assert (np.ptp(seen[MASKED].reshape(-1, 3), axis=0) == 0).all()


def test_a_server_that_reaches_the_originals_gets_nothing_to_show(label_studio, lake):
    # This one was booted for rounds without masks: its document root is the lake itself.
    (lake / "raw").mkdir()
    client = LabelStudioClient(
        label_studio.url,
        label_studio.administrator.token,
        images=image_source(str(lake)),
        shown=shown_source(str(lake), str(lake / "shown")),
    )
    masked = copies({image_id(0): f"shown/images/{image_id(0)}-0123456789ab.png"})
    with pytest.raises(LabelingError, match=r"can reach .*nothing was published.*/shown\."):
        client.publish(ROUND, ONTOLOGY, masked)
    assert client.held_assignments(ROUND) == set()

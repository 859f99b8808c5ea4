"""People and images are asked of whatever answers: JSON that is not Label Studio's is an error.

The error says at which address it came and where in it, and repeats nothing that may be personal.
"""

import json
import random
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotation_platform.errors import LabelingError
from annotation_platform.labeling.backends.label_studio.http import LabelStudioHttp
from annotation_platform.labeling.backends.label_studio.image_sources import (
    FolderImages,
    image_source,
)
from annotation_platform.labeling.backends.label_studio.people import (
    add_person,
    members,
    remove_person,
)
from tests.core.labeling import faulty_label_studio as faulty
from tests.core.labeling.faulty_label_studio import TOKEN, running
from tests.core.labeling.test_faulty_label_studio import spoiled

WHOAMI = "GET /api/current-user/whoami"
USERS = "GET /api/users/"
INVITE = "GET /api/invite"
SIGN_UP = "/user/signup/"
OWN_TOKEN = "GET /api/current-user/token"
FOLDERS = "GET /api/storages/localfiles/"
FORM = '<input name="csrfmiddlewaretoken" value="drawn">'
CANARY = "CANARY@example.org"


def says(body):
    return faulty.says(200, json.dumps(body))


def listed(server):
    return members(LabelStudioHttp(server.url, TOKEN))


def removed(server):
    return remove_person(server.url, TOKEN, "ada@example.org")


def added(server):
    server.fault(faulty.says(200, FORM), on=f"GET {SIGN_UP}")
    server.fault(faulty.says(302, Location="/"), on=f"POST {SIGN_UP}")
    server.fault(says({"token": "of the invitation"}), on=INVITE)
    server.fault(says({"token": "her own"}), on=OWN_TOKEN)
    server.fault(says({}), on="POST /api/invite/reset-token")
    return add_person(server.url, TOKEN, "ada@example.org")


def granted(server):
    FolderImages(Path("/nowhere")).grant(LabelStudioHttp(server.url, TOKEN), 1)


@pytest.mark.parametrize(
    ("act", "on", "body"),
    [
        pytest.param(listed, WHOAMI, [], id="a list for oneself"),
        pytest.param(listed, WHOAMI, {"pk": CANARY}, id="oneself without a number"),
        pytest.param(listed, USERS, {"results": [CANARY]}, id="pages of people"),
        pytest.param(listed, USERS, [{"id": 2}], id="a person without an address"),
        pytest.param(listed, USERS, [{"id": CANARY, "email": CANARY}], id="a text for a number"),
        pytest.param(listed, USERS, [CANARY], id="a text for a person"),
        pytest.param(removed, WHOAMI, {"id": 1}, id="oneself without an organisation"),
        pytest.param(removed, USERS, [{"id": None, "email": CANARY}], id="no number to remove"),
        pytest.param(added, INVITE, {"link": CANARY}, id="an invitation without a token"),
        pytest.param(added, INVITE, None, id="no invitation"),
        pytest.param(added, OWN_TOKEN, {"detail": CANARY}, id="an account without a token"),
        pytest.param(added, OWN_TOKEN, [CANARY], id="a list for a token"),
        pytest.param(granted, FOLDERS, {"results": []}, id="pages of records"),
        pytest.param(granted, FOLDERS, [{"title": CANARY}], id="a record without a path"),
        pytest.param(granted, FOLDERS, [CANARY], id="a text for a record"),
    ],
)
def test_json_of_another_shape_is_an_error_that_says_where(act, on, body):
    with running() as server:
        server.fault(says(body), on=on)
        path = on.split()[1]
        with pytest.raises(LabelingError, match=rf"{path} returned JSON that is not") as error:
            act(server)
    assert "CANARY" not in str(error.value)


def test_a_page_in_the_place_of_a_new_accounts_token_is_such_an_error_too():
    with running() as server:
        server.fault(faulty.LOGIN_PAGE, on=OWN_TOKEN)
        with pytest.raises(LabelingError, match="current-user/token returned JSON that is"):
            added(server)


def test_what_is_of_the_right_shape_is_read():
    with running() as server:
        assert added(server).token == "her own"
        server.users[2] = "ada@example.org"
        assert listed(server) == ["ada@example.org"]
        # A record of another kind may hold no path.
        server.fault(says([{"id": 3, "path": None}]), on=FOLDERS)
        granted(server)
        assert [record["path"] for record in server.storages.values()] == ["/nowhere/images"]


def test_a_record_of_a_bucket_needs_a_number_to_be_changed(monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "CANARY-0123456789")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    record = {"bucket": "images", "prefix": "lake/images", "id": "CANARY"}
    with running() as server:
        for records in ([record], {"results": [record]}, ["CANARY"]):
            server.fault(says(records), on="GET /api/storages/s3/")
            with pytest.raises(LabelingError, match=r"storages/s3/ returned JSON") as error:
                image_source("s3://images/lake").grant(LabelStudioHttp(server.url, TOKEN), 1)
            assert "CANARY" not in str(error.value)


@settings(max_examples=50, deadline=None)
@given(st.sampled_from([listed, removed, granted]), st.integers(1, 3), st.integers(0, 2**32))
def test_whatever_the_json_nothing_but_our_error_escapes(act, number, seed):
    with running() as server:
        server.users[2] = "ada@example.org"
        spoiling = partial(spoiled, drawn=random.Random(seed))
        server.fault(faulty.edited(spoiling), at=number)
        server.fault(says({}), on="(DELETE|POST) .*(memberships|reset-token).*", times=9)
        with suppress(LabelingError):
            act(server)

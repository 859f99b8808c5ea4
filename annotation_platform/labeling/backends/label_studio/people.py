"""Accounts of annotators in Label Studio.

Creating an account requires an invitation, and an invitation is void once used.
"""

import re
import secrets
from dataclasses import dataclass, field
from html import unescape

import httpx
from pydantic import TypeAdapter

from annotation_platform.errors import LabelingError
from annotation_platform.labeling.backends.label_studio.http import (
    NUMBERED,
    TIMEOUT_SECONDS,
    LabelStudioHttp,
    open_client,
    unreachable,
)

_EMAIL = re.compile(r"[^\s@,]+@[^\s@,]+")
_FORM_ERRORS = re.compile(r'<ul class="field_errors">(.*?)</ul>', re.DOTALL)
_CSRF = re.compile(r'name="csrfmiddlewaretoken" value="([^"]+)"')


@dataclass(frozen=True)
class _Secret:
    token: str = field(repr=False)


@dataclass(frozen=True)
class _Administrator:
    active_organization: int


@dataclass(frozen=True)
class User:
    """An account as Label Studio lists it; a removed one has no address."""

    id: int
    email: str


_SECRET = TypeAdapter(_Secret)
_ADMINISTRATOR = TypeAdapter(_Administrator)
USERS = TypeAdapter(list[User])

_WHOAMI = "/api/current-user/whoami"
_TOKEN = "/api/current-user/token"


@dataclass(frozen=True)
class Person:
    """An account and its secrets, which are not shown when it is printed."""

    email: str
    password: str = field(repr=False)
    token: str = field(repr=False)


def email_in(text: str) -> str:
    """Return the first e-mail address in ``text``, in lower case; empty if there is none."""
    match = _EMAIL.search(text)
    return match.group().lower() if match else ""


def add_person(url: str, token: str, email: str, password: str | None = None) -> Person:
    """Create an account that can log in and annotate; its password is random unless given.

    Accounts created by Label Studio's API cannot log in, so this function signs up like a person:
    invitation, sign-up form, own token. The invitation is replaced afterwards, since the server's
    log shows it; invitation links that were sent by hand become void.

    Args:
        url: address of the server.
        token: token of its administrator.
        email: becomes the account's name, in lower case.
        password: 8 to 128 characters.

    Raises:
        LabelingError: the address has an account (removed ones included), the form refused, or
            the server is not Label Studio.
    """
    address = email_in(email)
    if not address or address != email.strip().lower():
        raise LabelingError(f"{email!r} is not an e-mail address. Give one like ada@example.org.")
    password = password or secrets.token_urlsafe(12)
    http = LabelStudioHttp(url, token)
    invitation = http.read(_SECRET, "/api/invite").token
    try:
        with open_client(http.url, timeout_seconds=TIMEOUT_SECONDS) as browser:
            return _sign_up(browser, http, invitation, address, password)
    except httpx.HTTPError as error:
        raise unreachable(http.url, error) from error
    finally:
        http.post("/api/invite/reset-token", {}, repeatable=True)


def members(http: LabelStudioHttp) -> list[str]:
    """Return the e-mail addresses of all members except the token's own, sorted.

    Removed members are not among them: Label Studio returns them without an address.
    """
    administrator = http.read(NUMBERED, _WHOAMI).id
    return sorted(
        address
        for user in http.read(USERS, "/api/users/")
        if user.id != administrator and (address := email_in(user.email))
    )


def remove_person(url: str, token: str, email: str) -> None:
    """Remove a person from the organisation: they can no longer open images, tasks or annotations.

    Their annotations stay, with their name. Label Studio 1.23 still lets removed members log in
    with their password; they then see project titles and members and may *take an invitation*,
    which ``delete_account`` prevents. An account cannot be created again under a removed (not
    deleted) address.

    Raises:
        LabelingError: there is no such member, or the token may not remove members.
    """
    http = LabelStudioHttp(url, token)
    organization = http.read(_ADMINISTRATOR, _WHOAMI).active_organization
    ids = check_removable(http, email)
    if not ids:
        raise LabelingError(
            f"{http.url} has no account with the address {email}. `annotation-platform people "
            "list` lists the annotators."
        )
    http.delete(f"/api/organizations/{organization}/memberships/{ids[0]}/")
    # The removed person may know the invitation.
    http.post("/api/invite/reset-token", {}, repeatable=True)


def check_removable(http: LabelStudioHttp, email: str) -> list[int]:
    """Return the account numbers of an address; a LabelingError for the administrator's."""
    address = email_in(email)
    users = http.read(USERS, "/api/users/")
    ids = [user.id for user in users if address and email_in(user.email) == address]
    if http.read(NUMBERED, _WHOAMI).id in ids:
        raise LabelingError(
            f"{email} is the administrator whose token is used. Use another administrator's token."
        )
    return ids


def delete_account(http: LabelStudioHttp, email: str) -> int:
    """Delete the account of an address, if there is one; return how many were deleted.

    The annotations stay, but Label Studio loses their author, so collect them before: the ledger
    keeps the author.
    """
    ids = check_removable(http, email)
    for user in ids:
        http.delete(f"/api/users/{user}/")
    return len(ids)


def _sign_up(
    browser: httpx.Client, http: LabelStudioHttp, invitation: str, email: str, password: str
) -> Person:
    url = http.url
    path = f"/user/signup/?token={invitation}"
    csrf = _CSRF.search(browser.get(path).text)
    if csrf is None:
        raise LabelingError(f"{url}/user/signup/ shows no sign-up form. Is it Label Studio 1.23?")
    form = {
        "csrfmiddlewaretoken": csrf.group(1),
        "email": email,
        "password": password,
        "allow_newsletters": "false",
    }
    response = browser.post(path, data=form, headers={"Referer": url + path})
    if not response.is_redirect:
        refused = " ".join(
            re.sub("<[^>]+>", " ", " ".join(_FORM_ERRORS.findall(response.text))).split()
        )
        raise LabelingError(
            f"Label Studio at {url} created no account for {email}: "
            f"{unescape(refused) or f'it returned status {response.status_code}'}."
        )
    own = browser.get(_TOKEN)
    if own.status_code != 200:
        raise LabelingError(
            f"{email} has an account now, but Label Studio returns no token for it "
            f"({own.status_code}): legacy tokens are switched off. The browser works without one."
        )
    try:
        content = own.json()
    except ValueError:
        # Not JSON: the error for a wrong shape gives the path and repeats no content.
        content = None
    return Person(email=email, password=password, token=http.shaped(_SECRET, content, _TOKEN).token)

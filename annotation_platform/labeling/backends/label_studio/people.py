"""The people who label, as accounts in Label Studio.

Nobody can make an account without an invitation, and an invitation is void once used.
"""

import re
import secrets
from dataclasses import dataclass, field
from html import unescape

import httpx
from pydantic import TypeAdapter

from annotation_platform.errors import LabelingError
from annotation_platform.labeling.backends.label_studio.http import (
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
class _Me:
    id: int


@dataclass(frozen=True)
class _Administrator:
    id: int
    active_organization: int


@dataclass(frozen=True)
class _User:
    id: int
    email: str


_SECRET = TypeAdapter(_Secret)
_ME = TypeAdapter(_Me)
_ADMINISTRATOR = TypeAdapter(_Administrator)
_USERS = TypeAdapter(list[_User])

_WHOAMI = "/api/current-user/whoami"
_TOKEN = "/api/current-user/token"


@dataclass(frozen=True)
class Person:
    """An account as its owner needs it; the secrets do not show when it is printed."""

    email: str
    password: str = field(repr=False)
    token: str = field(repr=False)


def email_in(text: str) -> str:
    """Return the first e-mail address in ``text``, in small letters; empty if there is none."""
    match = _EMAIL.search(text)
    return match.group().lower() if match else ""


def add_person(
    url: str, token: str, email: str, password: str | None = None, *, timeout_seconds: float = 30.0
) -> Person:
    """Return a new account that can log in and answer; its password is drawn unless given.

    Label Studio's API makes accounts that cannot log in, so this goes the way of a person:
    invitation, sign-up form, own token. The invitation is replaced afterwards, since the
    server's log shows it; links that were sent to others by hand end with it.

    Args:
        url: Address of the server.
        token: Token of its administrator.
        email: Becomes the account's name, in small letters.
        password: 8 to 128 characters.
        timeout_seconds: For connecting, and for each wait for bytes.

    Raises:
        LabelingError: The address has an account (removed ones included), the form refused, or
            what answers is no Label Studio.
    """
    address = email_in(email)
    if not address or address != email.strip().lower():
        raise LabelingError(f"{email!r} is not an e-mail address. Give one like ada@example.org.")
    password = password or secrets.token_urlsafe(12)
    http = LabelStudioHttp(url, token, timeout_seconds=timeout_seconds)
    invitation = http.read(_SECRET, "/api/invite").token
    try:
        with open_client(http.url, timeout_seconds=timeout_seconds) as browser:
            return _sign_up(browser, http, invitation, address, password)
    except httpx.HTTPError as error:
        raise unreachable(http.url, error) from error
    finally:
        http.post("/api/invite/reset-token", {}, repeatable=True)


def list_people(url: str, token: str, *, timeout_seconds: float = 30.0) -> list[str]:
    """Return the e-mail addresses of all members but the token's own, sorted."""
    return members(LabelStudioHttp(url, token, timeout_seconds=timeout_seconds))


def members(http: LabelStudioHttp) -> list[str]:
    """Return the e-mail addresses of all members but the token's own, sorted.

    Removed members are not among them: Label Studio shows them without an address.
    """
    administrator = http.read(_ME, _WHOAMI).id
    return sorted(
        address
        for user in http.read(_USERS, "/api/users/")
        if user.id != administrator and (address := email_in(user.email))
    )


def remove_person(
    url: str,
    token: str,
    email: str,
    *,
    delete_account: bool = False,
    timeout_seconds: float = 30.0,
) -> None:
    """Take a person out of the organisation: no image, task or answer is open to them any more.

    Their answers stay, with their name. What Label Studio 1.23 leaves open: whoever still knows
    the password can log in again, and then sees project titles and members and may *take an
    invitation*. So with ``delete_account`` the account itself is deleted, which closes all
    that; answers stay there too, but Label Studio forgets whose they were, so pull first: the
    ledger keeps the author. Neither kind of account can be made again under a removed
    (not deleted) address.

    Raises:
        LabelingError: There is no such member, or the token may not remove members.
    """
    http = LabelStudioHttp(url, token, timeout_seconds=timeout_seconds)
    me = http.read(_ADMINISTRATOR, _WHOAMI)
    address = email_in(email)
    users = http.read(_USERS, "/api/users/")
    ids = [user.id for user in users if email_in(user.email) == address]
    if not address or not ids:
        raise LabelingError(
            f"{http.url} has no account with the address {email}. `annotation-platform people "
            "list` lists the annotators."
        )
    if ids[0] == me.id:
        raise LabelingError(f"{email} is the administrator whose token is used; it stays.")
    if delete_account:
        http.delete(f"/api/users/{ids[0]}/")
    else:
        http.delete(f"/api/organizations/{me.active_organization}/memberships/{ids[0]}/")
    # The invitation may be known to whoever leaves.
    http.post("/api/invite/reset-token", {}, repeatable=True)


def check_removable(http: LabelStudioHttp, email: str) -> list[int]:
    """Return the numbers of an address's accounts; the administrator's is a LabelingError."""
    address = email_in(email)
    users = http.read(_USERS, "/api/users/")
    ids = [user.id for user in users if address and email_in(user.email) == address]
    if http.read(_ME, _WHOAMI).id in ids:
        raise LabelingError(f"{email} is the administrator whose token is used. Use another's.")
    return ids


def delete_account(http: LabelStudioHttp, email: str) -> int:
    """Delete the account of an address, if there is one; return how many were deleted."""
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
            f"Label Studio at {url} made no account for {email}: "
            f"{unescape(refused) or f'it answered {response.status_code}'}."
        )
    own = browser.get(_TOKEN)
    if own.status_code != 200:
        raise LabelingError(
            f"{email} has an account now, but Label Studio gives no token for it "
            f"({own.status_code}): legacy tokens are switched off. People can label in the browser."
        )
    try:
        said = own.json()
    except ValueError:
        # What is no JSON is of no shape either; the error names the place and repeats nothing.
        said = None
    return Person(email=email, password=password, token=http.shaped(_SECRET, said, _TOKEN).token)

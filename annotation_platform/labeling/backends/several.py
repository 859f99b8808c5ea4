"""Several places where people label, in one round: each task goes to one of them, and stays."""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence

from annotation_platform.errors import SettingsError
from annotation_platform.labeling.backends.protocol import (
    LabelingBackend,
    Place,
    Progress,
    Submission,
    TaskCopy,
)
from annotation_platform.schema.ontology import Ontology
from annotation_platform.schema.tables import table_named
from annotation_platform.storage.journal import Journal
from annotation_platform.storage.objects import ObjectStore
from annotation_platform.storage.round_tables import RoundTables


class SeveralLabeling(LabelingBackend):
    """Back ends that share a round by tasks: all places of a task are answered in one of them.

    Where a task went is noted in the lake, ``routes/<round>``, before anybody is asked, and holds
    from then on, whatever the shares become. A round that began with one back end alone, before
    there were several, stays there.

    Args:
        clients: the back ends, by the names that tables record.
        shares: how much of new tasks each gets, by name; only their proportion matters. One that
            is missing gets none, but what it has stays.
        store: the lake's objects.
        home: the back end of rounds that began with one alone.
        seed: draws another division.

    Raises:
        SettingsError: shares are not those of the back ends, negative or all zero.
    """

    def __init__(
        self,
        clients: Mapping[str, LabelingBackend],
        shares: Mapping[str, float],
        store: ObjectStore,
        *,
        home: str,
        seed: int = 0,
    ) -> None:
        unknown = sorted(set(shares) - set(clients))
        usable = all(math.isfinite(share) and share >= 0 for share in shares.values())
        if unknown or not usable or not any(shares.values()):
            raise SettingsError(
                f"the shares {dict(shares)} do not divide tasks among "
                f"{', '.join(sorted(clients))}. Give each a number from 0 up, one of them above 0."
            )
        if home not in clients or any(name != each.name for name, each in clients.items()):
            raise ValueError(
                f"{home} is not among {list(clients)}, or one of them has another name"
            )
        self._clients = dict(clients)
        self._shares = dict(shares)
        self._store = store
        self._home = home
        self._seed = seed
        self._seen: dict[str, str] = {}

    @property
    def name(self) -> str:
        """The name of all of them together; tables record the one that has the task."""
        return "several"

    def backend_of(self, task_id: str) -> str:
        """Return the name of the back end in which people answer a task."""
        if task_id not in self._seen:
            # Ids of tasks begin with their round; its reviews are noted beside it.
            rounds = {key.split("/")[1] for key in self._store.list("routes")}
            for round_id in sorted(rounds):
                if round_id.startswith(task_id.partition("/")[0]):
                    self._noted(round_id)
        return self._seen.get(task_id, self._home)

    def annotators(self) -> list[str]:
        """Return those whom any of the back ends can assign places to, sorted."""
        return sorted({who for client in self._clients.values() for who in client.annotators()})

    def routes(
        self, round_id: str, task_ids: Iterable[str], *, review: bool = False
    ) -> dict[str, str]:
        """Return the name of the back end of each task, noting it for those that are new.

        The new ones are divided so that, over the whole round, every back end is as near to its
        share as whole tasks allow; which task goes where is drawn by their ids. Reviews are never
        handed off.

        Raises:
            SettingsError: a task lies in a back end that is not among these, or none takes reviews.
        """
        wanted = list(dict.fromkeys(task_ids))
        while True:
            entries, known = self._noted(round_id)
            new = [task for task in wanted if task not in known]
            if not new:
                for name in {known[task] for task in wanted}:
                    self._client(round_id, name)
                return {task: known[task] for task in wanted}
            alone = not known and self._begun(round_id)
            shares = {self._home: 1.0} if alone else self._open_shares(review=review)
            divided = _divided(known, sorted(new, key=self._drawn), shares)
            # Whoever notes routes at the same moment may be first; then theirs hold.
            self._journal(round_id).create(entries + 1, json.dumps(divided).encode())

    def people_for(self, round_id: str, task_ids: Sequence[str]) -> dict[str, list[str]]:
        """Return those whom the places of each task can be assigned to; nobody at a vendor's."""
        routes = self.routes(round_id, task_ids)
        people = {name: self._clients[name].annotators() for name in set(routes.values())}
        return {task: people[name] for task, name in routes.items()}

    def publish(
        self,
        round_id: str,
        ontology: Ontology,
        copies: Sequence[TaskCopy],
        *,
        closed: Collection[Place] = (),
    ) -> Mapping[Place, str]:
        """Have each back end publish its tasks and return the ids over there by (task_id, place).

        Doing it again, whole or after half of it, adds what is missing and nothing else.
        """
        review = any(copy.purpose == "review" for copy in copies)
        routes = self.routes(round_id, (copy.task_id for copy in copies), review=review)
        ids: dict[Place, str] = {}
        for name in sorted(set(routes.values())):
            theirs = [copy for copy in copies if routes[copy.task_id] == name]
            ids |= self._clients[name].publish(round_id, ontology, theirs, closed=closed)
        return ids

    def held_places(self, round_id: str) -> set[Place] | None:
        """Return the places whose tasks one of the back ends of a round holds now.

        None if one of them cannot tell.
        """
        held = [client.held_places(round_id) for client in self._clients_of(round_id)]
        known = [places for places in held if places is not None]
        return set().union(*known) if len(known) == len(held) else None

    def collect(self, round_id: str) -> list[Submission]:
        """Return what people submitted to all back ends that have tasks of the round.

        Each says which back end it is from.
        """
        return [
            submission
            for client in self._clients_of(round_id)
            for submission in client.collect(round_id)
        ]

    def progress(self, round_id: str) -> Progress:
        """Return how many tasks and annotations the back ends of a round have together."""
        held = [client.progress(round_id) for client in self._clients_of(round_id)]
        tasks = [each.tasks for each in held if each.tasks is not None]
        annotations = sum(each.annotations for each in held)
        return Progress(sum(tasks) if len(tasks) == len(held) else None, annotations)

    def change_token(self, round_id: str) -> str:
        """Return a text that changes when an answer comes, is edited or deleted in any of them."""
        stamps = (
            f"{client.name}: {client.change_token(round_id)}"
            for client in self._clients_of(round_id)
        )
        return "; ".join(stamps)

    def delete(self, images: Collection[str]) -> int:
        """Take the tasks of images away in every back end, and return how many there were."""
        return sum(client.delete(images) for client in self._clients.values())

    def check_person(self, name: str) -> None:
        """Raise a LabelingError if one of the back ends cannot let somebody go."""
        for client in self._clients.values():
            client.check_person(name)

    def delete_person(self, name: str) -> int:
        """Take somebody out of every back end, and return at how many places their name stood."""
        return sum(client.delete_person(name) for client in self._clients.values())

    def round_url(self, round_id: str) -> str:
        """Return the address of the first back end that has one for this round; or nothing."""
        urls = (client.round_url(round_id) for client in self._clients_of(round_id))
        return next((url for url in urls if url), "")

    def _clients_of(self, round_id: str) -> list[LabelingBackend]:
        """Return the back ends that have tasks of a round; the others are left in peace."""
        _, known = self._noted(round_id)
        names = sorted(set(known.values())) or [self._home]
        return [self._client(round_id, name) for name in names]

    def _noted(self, round_id: str) -> tuple[int, dict[str, str]]:
        """Return how often routes of a round were noted, and the back end of each task."""
        entries = self._journal(round_id).read()
        known: dict[str, str] = {}
        for entry in entries:
            known = json.loads(entry) | known
        self._seen |= known
        return len(entries), known

    def _begun(self, round_id: str) -> bool:
        """Return whether people were asked already, reviewers for a round of reviews."""
        tables = RoundTables(self._store)
        asked = round_id.removesuffix("-review")
        return tables.exists(
            table_named("label_tasks" if asked == round_id else "review_tasks"), asked
        )

    def _open_shares(self, *, review: bool) -> dict[str, float]:
        """Return the shares of those that get new tasks; reviews stay in the house."""
        open_ = {name: share for name, share in self._shares.items() if share > 0}
        if not review:
            return open_
        inside = [name for name, client in self._clients.items() if client.takes_reviews]
        if not inside:
            raise SettingsError(
                "no back end can put reviews before anybody. Name one besides handoff, with a "
                "share of 0 if it is for reviews alone, or set `review.gate: auto`."
            )
        return {name: open_[name] for name in inside if name in open_} or dict.fromkeys(inside, 1.0)

    def _drawn(self, task_id: str) -> str:
        return hashlib.sha256(f"{self._seed}:{task_id}".encode()).hexdigest()

    def _client(self, round_id: str, name: str) -> LabelingBackend:
        if name not in self._clients:
            raise SettingsError(
                f"{round_id} has tasks in {name}, which is not among the back ends "
                f"({', '.join(sorted(self._clients))}). Name it with a share of 0 to keep them."
            )
        return self._clients[name]

    def _journal(self, round_id: str) -> Journal:
        return Journal(self._store, f"routes/{round_id}")


def share_rounds(
    home: LabelingBackend,
    others: Mapping[str, LabelingBackend],
    shares: Mapping[str, float],
    store: ObjectStore,
    *,
    seed: int = 0,
) -> LabelingBackend:
    """Return where people annotate: a deployment's own back end, alone or shared with others.

    Without shares that is ``home`` itself, unless some round was shared before.

    Args:
        home: the deployment's own back end.
        others: back ends that may have tasks, by name.
        shares: of new tasks, by the name of a back end.
        store: the lake's objects.
        seed: of the division.
    """
    if not shares and not any(store.list("routes")):
        return home
    clients = {**others, home.name: home}
    return SeveralLabeling(clients, shares or {home.name: 1.0}, store, home=home.name, seed=seed)


def _divided(
    known: Mapping[str, str], new: Iterable[str], shares: Mapping[str, float]
) -> dict[str, str]:
    """Return a back end for each new task: always the one that is furthest below its share."""
    counts = Counter(known.values())
    whole = sum(shares.values())
    divided = {}
    for task in new:
        total = counts.total() + 1
        name = max(sorted(shares), key=lambda each: shares[each] / whole * total - counts[each])
        counts[name] += 1
        divided[task] = name
    return divided

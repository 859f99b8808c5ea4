"""Several back ends in one round: each task is published in one of them and stays there."""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence

from annotation_platform.errors import SettingsError
from annotation_platform.labeling.backends.protocol import (
    AssignmentKey,
    LabelingBackend,
    Progress,
    Replica,
    Submission,
)
from annotation_platform.schema.ontology import Ontology
from annotation_platform.schema.tables import LabelTasks, ReviewTasks
from annotation_platform.storage.journal import Journal
from annotation_platform.storage.objects import ObjectStore
from annotation_platform.storage.round_tables import RoundTables


class SeveralLabeling(LabelingBackend):
    """Back ends that share a round by tasks: all assignments of a task are in one back end.

    The back end of each task is recorded in the lake, ``routes/<round>``, before publishing, and is
    kept whatever the shares become. A round that began with a single back end stays there.

    Args:
        clients: the back ends, by the names that tables record.
        shares: each back end's share of new tasks, by name; only their proportion matters. A
            missing one gets no new tasks and keeps the tasks that it has.
        store: the lake's objects.
        home: the back end of rounds that began with a single one.
        seed: seed of the division.

    Raises:
        SettingsError: a share names an unknown back end or is negative, or all are zero.
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
        self._backend_of_task: dict[str, str] = {}

    @property
    def name(self) -> str:
        """The name of the group; tables record the back end of each task."""
        return "several"

    def backend_of(self, task_id: str) -> str:
        """Return the name of the back end that holds a task."""
        if task_id not in self._backend_of_task:
            # Task ids begin with the round; its reviews have routes of their own.
            rounds = {key.split("/")[1] for key in self._store.list("routes")}
            for round_id in sorted(rounds):
                if round_id.startswith(task_id.partition("/")[0]):
                    self._recorded(round_id)
        return self._backend_of_task.get(task_id, self._home)

    def annotators(self) -> list[str]:
        """Return the possible assignees of all back ends, sorted."""
        return sorted({name for client in self._clients.values() for name in client.annotators()})

    def routes(
        self, round_id: str, task_ids: Iterable[str], *, review: bool = False
    ) -> dict[str, str]:
        """Return the name of the back end of each task, and record it for new tasks.

        New tasks are divided so that every back end is as near to its share of the whole round as
        possible; the hash of the task id decides its back end. Reviews never go to vendors.

        Raises:
            SettingsError: a task is in a back end that is not configured, or none takes reviews.
        """
        task_names = list(dict.fromkeys(task_ids))
        while True:
            entries, known = self._recorded(round_id)
            new = [task for task in task_names if task not in known]
            if not new:
                for name in {known[task] for task in task_names}:
                    self._client(round_id, name)
                return {task: known[task] for task in task_names}
            is_alone = not known and self._begun(round_id)
            shares = {self._home: 1.0} if is_alone else self._open_shares(review=review)
            divided = _divide(known, sorted(new, key=self._random_key), shares)
            # If another process recorded routes first, its routes are used.
            self._journal(round_id).create(entries + 1, json.dumps(divided).encode())

    def people_for(self, round_id: str, task_ids: Sequence[str]) -> dict[str, list[str]]:
        """Return the possible assignees of each task; none at a vendor."""
        routes = self.routes(round_id, task_ids)
        people = {name: self._clients[name].annotators() for name in set(routes.values())}
        return {task: people[name] for task, name in routes.items()}

    def publish(
        self,
        round_id: str,
        ontology: Ontology,
        replicas: Sequence[Replica],
        *,
        closed: Collection[AssignmentKey] = (),
    ) -> Mapping[AssignmentKey, str]:
        """Publish the tasks in their back ends and return the ids there by assignment.

        Publishing again, after a complete or an interrupted call, adds only what is missing.
        """
        review = any(replica.purpose == "review" for replica in replicas)
        routes = self.routes(round_id, (replica.task_id for replica in replicas), review=review)
        ids: dict[AssignmentKey, str] = {}
        for name in sorted(set(routes.values())):
            routed = [replica for replica in replicas if routes[replica.task_id] == name]
            ids |= self._clients[name].publish(round_id, ontology, routed, closed=closed)
        return ids

    def held_assignments(self, round_id: str) -> set[AssignmentKey] | None:
        """Return the assignments whose tasks one of the back ends of a round holds now.

        None if one of them cannot tell.
        """
        held = [client.held_assignments(round_id) for client in self._clients_of(round_id)]
        known = [assignments for assignments in held if assignments is not None]
        return set().union(*known) if len(known) == len(held) else None

    def collect(self, round_id: str) -> list[Submission]:
        """Return the submissions of all back ends that have tasks of the round.

        Each submission names its back end.
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
        """Return a text that changes when any back end gets, edits or loses an annotation."""
        tokens = (
            f"{client.name}: {client.change_token(round_id)}"
            for client in self._clients_of(round_id)
        )
        return "; ".join(tokens)

    def delete(self, images: Collection[str]) -> int:
        """Delete the tasks of images in every back end, and return how many there were."""
        return sum(client.delete(images) for client in self._clients.values())

    def check_person(self, name: str) -> None:
        """Raise a LabelingError if a back end cannot delete the person's account."""
        for client in self._clients.values():
            client.check_person(name)

    def delete_person(self, name: str) -> int:
        """Delete a person in every back end, and return how many entries held their name."""
        return sum(client.delete_person(name) for client in self._clients.values())

    def round_url(self, round_id: str) -> str:
        """Return the first page address of a back end for this round; empty if there is none."""
        urls = (client.round_url(round_id) for client in self._clients_of(round_id))
        return next((url for url in urls if url), "")

    def _clients_of(self, round_id: str) -> list[LabelingBackend]:
        """Return the back ends that have tasks of a round; the others are not called."""
        _, known = self._recorded(round_id)
        names = sorted(set(known.values())) or [self._home]
        return [self._client(round_id, name) for name in names]

    def _recorded(self, round_id: str) -> tuple[int, dict[str, str]]:
        """Return how many entries record routes of a round, and the back end of each task."""
        entries = self._journal(round_id).read()
        known: dict[str, str] = {}
        for entry in entries:
            known = json.loads(entry) | known
        self._backend_of_task |= known
        return len(entries), known

    def _begun(self, round_id: str) -> bool:
        """Return whether tasks were published already; reviews for a round of reviews."""
        tables = RoundTables(self._store)
        labelled = round_id.removesuffix("-review")
        return tables.exists(LabelTasks if labelled == round_id else ReviewTasks, labelled)

    def _open_shares(self, *, review: bool) -> dict[str, float]:
        """Return the shares of back ends that get new tasks; vendors get no reviews."""
        open_ = {name: share for name, share in self._shares.items() if share > 0}
        if not review:
            return open_
        inside = [name for name, client in self._clients.items() if client.takes_reviews]
        if not inside:
            raise SettingsError(
                "no back end takes reviews. Add one other than handoff, with a share of 0 if it is "
                "for reviews alone, or set `review.gate: auto`."
            )
        return {name: open_[name] for name in inside if name in open_} or dict.fromkeys(inside, 1.0)

    def _random_key(self, task_id: str) -> str:
        return hashlib.sha256(f"{self._seed}:{task_id}".encode()).hexdigest()

    def _client(self, round_id: str, name: str) -> LabelingBackend:
        if name not in self._clients:
            raise SettingsError(
                f"{round_id} has tasks in {name}, which is not among the back ends "
                f"({', '.join(sorted(self._clients))}). Add it with a share of 0 to keep them."
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
    """Return the deployment's own back end, alone or shared with others.

    Without shares that is ``home`` itself, unless a round was shared before.

    Args:
        home: the deployment's own back end.
        others: further back ends, by name.
        shares: shares of new tasks, by back end.
        store: the lake's objects.
        seed: seed of the division.
    """
    if not shares and not any(store.list("routes")):
        return home
    clients = {**others, home.name: home}
    return SeveralLabeling(clients, shares or {home.name: 1.0}, store, home=home.name, seed=seed)


def _divide(
    known: Mapping[str, str], new: Iterable[str], shares: Mapping[str, float]
) -> dict[str, str]:
    """Return a back end for each new task: always the one furthest below its share."""
    counts = Counter(known.values())
    whole = sum(shares.values())
    divided = {}
    for task in new:
        total = counts.total() + 1
        name = max(sorted(shares), key=lambda each: shares[each] / whole * total - counts[each])
        counts[name] += 1
        divided[task] = name
    return divided

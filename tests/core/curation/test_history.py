from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotation_platform.curation.history import LEGAL, STAYS, ImageEvent, in_order, require_legal
from annotation_platform.errors import DataError

IMAGE = "ab" * 32
NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


def events(*steps, round_id="round-0001"):
    """Events from ``state`` (no time known), or ``(state, minute)``."""
    pairs = [(step, None) if isinstance(step, str) else step for step in steps]
    return [
        ImageEvent(state, None if minute is None else at(minute), round_id, "", f"{state} {minute}")
        for state, minute in pairs
    ]


def at(minute):
    return NOON + timedelta(minutes=minute)


def states(found):
    return [event.state for event in found]


ARRIVED = events("landed", "clean")
PUBLISHED = [*ARRIVED, *events(("queued", 0), ("annotated", 1), "consensus", ("exported", 5))]


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param(PUBLISHED, id="undisputed"),
        pytest.param(
            [*PUBLISHED, *events(("exported", 6), ("annotated", 7), ("exported", 8))],
            id="several versions, and an answer that came late",
        ),
        pytest.param(
            [
                *ARRIVED,
                *events(("queued", 0), ("annotated", 1), "consensus", ("in review", 2)),
                *events(("reviewed", 3), ("exported", 5)),
            ],
            id="reviewed",
        ),
        pytest.param(
            events("landed", "clean", "imported", ("exported", 1)), id="labels came along"
        ),
        pytest.param(
            [
                *events(
                    "landed", "clean", "imported", ("queued", 0), ("abandoned", 1), ("exported", 2)
                ),
            ],
            id="imported labels without annotations",
        ),
        pytest.param(
            [
                *events("landed", "quarantined"),
                *events(("landed", 3), "clean", round_id="round-0002"),
            ],
            id="put back from quarantine",
        ),
        pytest.param(
            [*PUBLISHED, *events("landed", "duplicate", round_id="round-0002")],
            id="landed again",
        ),
        pytest.param(
            [
                *ARRIVED,
                *events(("queued", 0), ("abandoned", 1)),
                *events(("queued", 2), ("annotated", 4), "consensus", round_id="round-0002"),
                *events(("annotated", 3)),
            ],
            id="left, asked again, and annotated in both rounds",
        ),
        pytest.param(
            [
                *ARRIVED,
                *events(
                    ("queued", 0), ("abandoned", 1), ("annotated", 2), ("reopened", 3), "consensus"
                ),
            ],
            id="annotated late, and re-opened for it",
        ),
        pytest.param(
            [*PUBLISHED, *events(("cancelled", 6), ("reopened", 7), ("exported", 8))],
            id="cancelled by mistake",
        ),
        pytest.param(
            [
                *ARRIVED,
                *events("accepted", ("exported", 3), round_id="round-0002"),
                *events(("queued", 5), ("annotated", 6), "consensus", round_id="round-0003"),
                *events(("exported", 7), round_id="round-0003"),
            ],
            id="accepted without a person, and asked about later",
        ),
    ],
)
def test_what_may_happen_to_a_image(steps):
    require_legal(IMAGE, in_order(steps))


@pytest.mark.parametrize(
    ("steps", "now", "before"),
    [
        pytest.param(events("clean"), "clean", "not landed yet", id="clean, but never landed"),
        pytest.param(
            events("landed", "quarantined", ("queued", 0)), "queued", "quarantined",
            id="asked about though it is in quarantine",
        ),
        pytest.param(
            [*ARRIVED, *events(("annotated", 1))], "annotated", "clean", id="annotated unasked"
        ),
        pytest.param(
            [*ARRIVED, *events(("queued", 0), "consensus")], "consensus", "queued",
            id="resolved without an answer",
        ),
        pytest.param(
            [*ARRIVED, *events(("queued", 0), ("abandoned", 1), ("annotated", 2), "consensus")],
            "consensus", "abandoned", id="resolved though the round was closed without it",
        ),
        pytest.param(
            [*ARRIVED, *events(("queued", 0), ("annotated", 1), ("exported", 5))],
            "exported", "annotated", id="published unresolved",
        ),
        pytest.param(
            [
                *ARRIVED,
                *events(("queued", 0), ("annotated", 1), "consensus", ("in review", 2)),
                *events(("exported", 3), ("reviewed", 9)),
            ],
            "exported", "in review", id="published before the reviewer decided",
        ),
        pytest.param(
            [*PUBLISHED, *events(("cancelled", 6), ("exported", 7))], "exported", "cancelled",
            id="published after the round was cancelled",
        ),
        pytest.param(
            [*ARRIVED, *events(("queued", 0), ("annotated", 1), ("reopened", 2))],
            "reopened", "annotated", id="re-opened though it was open",
        ),
        pytest.param(
            [*PUBLISHED, *events(("exported", 9), round_id="round-0002")], "exported", "clean",
            id="published with labels of a round that never asked",
        ),
        pytest.param(
            [*ARRIVED, *events(("queued", 0)), *events("accepted")], "accepted", "queued",
            id="accepted without a person in the round that asks",
        ),
    ],
)  # fmt: skip
def test_what_may_not_happen_names_image_round_and_both_states(steps, now, before):
    with pytest.raises(DataError) as caught:
        require_legal(IMAGE, in_order(steps))
    message = str(caught.value)
    wrong = [event for event in steps if event.state == now][-1]
    assert message.startswith(f"{IMAGE}: {now}")
    assert f"in {wrong.round_id}" in message
    assert f"but it was {before}" in message


def test_what_has_no_time_stands_as_early_as_what_it_rests_on_allows():
    steps = [
        *ARRIVED,
        *events(("queued", 0), ("annotated", 1), ("annotated", 2), "consensus", ("in review", 3)),
        *events(("annotated", 4), ("reviewed", 6)),
    ]
    assert states(in_order(steps)) == [
        "landed", "clean", "queued", "annotated", "annotated", "consensus", "in review",
        "annotated", "reviewed",
    ]  # fmt: skip
    # Merged again: the obsolete review follows its request, not version one.
    again = [*PUBLISHED, *events(("annotated", 6), ("in review", 7), "reviewed", ("exported", 8))]
    assert states(in_order(again))[4:] == [
        "consensus", "exported", "annotated", "in review", "reviewed", "exported"
    ]  # fmt: skip
    require_legal(IMAGE, in_order(again))


def test_what_was_accepted_stands_behind_what_led_to_its_round():
    left = [*ARRIVED, *events(("queued", 0), ("abandoned", 4))]
    accepted = ImageEvent("accepted", None, "round-0002", "", "", not_before=at(5))
    exported = events(("exported", 9), round_id="round-0002")
    path = in_order([*exported, accepted, *left])
    assert states(path) == ["landed", "clean", "queued", "abandoned", "accepted", "exported"]
    require_legal(IMAGE, path)


def test_a_clock_that_runs_late_does_not_put_an_annotation_before_its_question():
    steps = [*ARRIVED, *events(("queued", 0), ("annotated", -3), "consensus")]
    found = in_order(steps)
    assert states(found) == ["landed", "clean", "queued", "annotated", "consensus"]
    assert found[3].at == at(-3)


def test_a_version_of_the_same_second_comes_after_what_it_rests_on():
    (decided,) = events(("reviewed", 1))
    decided = replace(decided, at=at(1) + timedelta(milliseconds=700))
    steps = [
        *ARRIVED,
        *events(("queued", 0), ("annotated", 0.5), "consensus", ("in review", 0.7)),
        decided,
        *events(("exported", 1)),
    ]
    require_legal(IMAGE, in_order(steps))


@st.composite
def walks(draw):
    """A legal history of two independent rounds, in the order of its events."""
    happened = events("landed", "clean")
    current = {"round-0001": "clean", "round-0002": "clean"}
    back = {}
    for minute in range(draw(st.integers(0, 25))):
        key = draw(st.sampled_from(sorted(current)))
        here = current[key]
        state = draw(st.sampled_from(sorted((LEGAL[here] | STAYS.get(here, set())) - {"imported"})))
        arrives = state in ("landed", "clean", "duplicate", "quarantined")
        happened += events(state if arrives else (state, minute), round_id=key)
        if here in ("abandoned", "cancelled") and state == "annotated":
            back[key] = "annotated" if "annotated" in LEGAL[back[key]] else back[key]
        elif state == "reopened":
            current[key] = back[key]
        elif not arrives and state in LEGAL[here]:
            if state in ("abandoned", "cancelled") and here not in ("abandoned", "cancelled"):
                back[key] = here
            current[key] = state
    return happened


@given(walks(), st.randoms(use_true_random=False))
def test_any_beginning_of_a_legal_history_is_legal_and_the_order_given_does_not_matter(
    happened, random
):
    ordered = in_order(happened)
    for length in range(len(ordered) + 1):
        require_legal(IMAGE, ordered[:length])
    shuffled = list(happened)
    random.shuffle(shuffled)
    assert in_order(shuffled) == ordered

from collections import Counter
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from annotation_platform.labeling.assignment_plan import (
    AnnotationRequest,
    Assignment,
    AssignmentPlan,
    plan_assignments,
)
from annotation_platform.storage.objects import LocalObjectStore

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LATER = datetime(2026, 1, 2, tzinfo=UTC)
SKILLS = ("", "agronomy", "birds")


def names(number):
    return [f"person-{n}@example.org" for n in range(number)]


def wanted(images, annotations, **fields):
    return [AnnotationRequest(f"image-{n}", annotations, **fields) for n in range(images)]


@st.composite
def rounds(draw):
    """A round's first batch, in which some tasks need an expertise, and who there is to ask."""
    people = names(draw(st.integers(0, 8)))
    asked = [
        AnnotationRequest(
            f"image-{n}", draw(st.integers(1, 4)), expertise=draw(st.sampled_from(SKILLS))
        )
        for n in range(draw(st.integers(0, 12)))
    ]
    able = st.sets(st.sampled_from(people)) if people else st.just(set())
    return asked, people, {skill: draw(able) for skill in SKILLS[1:]}


@given(st.integers(0, 30), st.integers(1, 64), st.integers(1, 5))
def test_the_load_of_two_people_differs_by_one_place_at_most(images, people, annotations):
    assignments = plan_assignments(wanted(images, annotations), names(people))
    load = Counter(assignment.assignee for assignment in assignments if assignment.assignee)
    if people >= annotations:
        assert sum(load.values()) == images * annotations
        assert max(load.values(), default=0) - min(load[name] for name in names(people)) <= 1
    else:
        # Too few people for even one task: its assignments are open.
        assert not load


@given(rounds())
def test_nobody_is_asked_twice_about_an_image_and_only_those_who_know_it(asked_of):
    asked, people, qualified = asked_of
    assignments = plan_assignments(asked, people, qualified=qualified)
    assert [(assignment.image_id, assignment.assignment) for assignment in assignments] == [
        (task.image_id, number) for task in asked for number in range(1, task.annotations + 1)
    ]
    taken = [
        (assignment.image_id, assignment.assignee)
        for assignment in assignments
        if assignment.assignee
    ]
    assert len(set(taken)) == len(taken)
    for assignment in assignments:
        able = qualified[assignment.expertise] if assignment.expertise else set(people)
        assert assignment.assignee in {"", *able}
        # All assignments of a task are open to anybody or none is.
        same = [other.assignee for other in assignments if other.image_id == assignment.image_id]
        assert ("" in same) == (len(able) < len(same))


@given(rounds(), st.data())
def test_a_further_wave_numbers_on_and_asks_nobody_who_knows_the_image(asked_of, data):
    asked, people, qualified = asked_of
    first = plan_assignments(asked, people, qualified=qualified)
    images = [task.image_id for task in asked]
    outside = [*people, "another@example.org"]
    involved = {image: data.draw(st.sets(st.sampled_from(outside))) for image in images}
    # An image may come up twice in a batch.
    again = [*asked, *asked[:2]]
    more = plan_assignments(again, people, taken=first, involved=involved, qualified=qualified)
    for image in images:
        numbers = [
            assignment.assignment for assignment in (*first, *more) if assignment.image_id == image
        ]
        assert numbers == list(range(1, len(numbers) + 1))
        known = [p.assignee for p in (*first, *more) if p.image_id == image and p.assignee]
        assert len(set(known)) == len(known)
        assert not {p.assignee for p in more if p.image_id == image} & involved[image]


def test_a_further_wave_goes_to_those_who_had_the_least():
    busy = [
        Assignment(
            f"image-{n}", 1, "ada", "label", "", without_predictions=False, fills_assignment=1
        )
        for n in range(5)
    ]
    assignments = plan_assignments(wanted(8, 1), ["ada", "ben", "cam"], taken=busy)
    assert Counter(assignment.assignee for assignment in assignments) == {"ben": 4, "cam": 4}


@given(rounds(), st.randoms())
def test_the_same_people_in_any_order_get_the_same_places(asked_of, random):
    asked, people, qualified = asked_of
    shuffled = random.sample(people, len(people))
    once = plan_assignments(
        asked, people, qualified=qualified, share_without_predictions=0.5, seed=7
    )
    assert (
        plan_assignments(
            asked, shuffled, qualified=qualified, share_without_predictions=0.5, seed=7
        )
        == once
    )
    # An address that is listed twice is one person.
    assert (
        plan_assignments(
            asked, people * 2, qualified=qualified, share_without_predictions=0.5, seed=7
        )
        == once
    )


def test_the_blind_share_is_met_is_no_persons_and_stays_as_it_was_drawn():
    asked, people = wanted(2000, 3), names(10)
    assignments = plan_assignments(asked, people, share_without_predictions=0.2, seed=1)
    without_predictions = [
        assignment for assignment in assignments if assignment.without_predictions
    ]
    # Of 6,000 draws at 0.2 three standard deviations are 93.
    assert abs(len(without_predictions) - 1200) <= 93
    # Of one person's 600 draws four are 39; there are ten people.
    assert all(
        abs(sum(p.assignee == name for p in without_predictions) - 120) <= 39 for name in people
    )
    # Other people and other purposes do not change which assignments are without predictions.
    fewer = plan_assignments(asked[:100], names(5), share_without_predictions=0.2, seed=1)
    assert [assignment.without_predictions for assignment in fewer] == [
        assignment.without_predictions for assignment in assignments[:300]
    ]
    other = plan_assignments(asked, people, share_without_predictions=0.2, seed=2)
    assert [assignment.without_predictions for assignment in other] != [
        assignment.without_predictions for assignment in assignments
    ]
    for share, expected in ((0.0, 0), (1.0, 6000)):
        drawn = plan_assignments(asked, people, share_without_predictions=share)
        assert sum(assignment.without_predictions for assignment in drawn) == expected


def test_of_a_thousand_leases_none_goes_to_somebody_who_lacks_the_expertise():
    people = names(64)
    experts = {"agronomy": set(people[::6]), "birds": set(people[1::9])}
    asked = [AnnotationRequest(f"image-{n}", 3, expertise=SKILLS[n % 3]) for n in range(400)]
    assignments = plan_assignments(asked, people, qualified=experts)
    tagged = [assignment for assignment in assignments if assignment.expertise]
    assert len(assignments) == 1200
    assert len(tagged) == 3 * 266
    assert all(assignment.assignee in experts[assignment.expertise] for assignment in tagged)
    # Among those who know a thing its assignments are spread evenly too.
    for skill, known in experts.items():
        load = Counter(
            assignment.assignee for assignment in tagged if assignment.expertise == skill
        )
        assert max(load.values()) - min(load[name] for name in known) <= 1


def test_a_plan_is_what_was_fixed_first_whoever_else_plans(tmp_path):
    plan = AssignmentPlan(LocalObjectStore(tmp_path), "round-0001")
    nothing = plan.read()
    assert (nothing.assignments, nothing.asked_at, nothing.batches) == ([], None, 0)
    mine = plan_assignments(wanted(2, 1), ["ada"])
    theirs = plan_assignments(wanted(2, 1), ["ben"])
    first = plan.add(nothing, mine, guideline="c0ffee", now=NOW)
    assert first.assignments == mine
    # Another process read the empty plan too, and comes second.
    assert plan.add(nothing, theirs, guideline="beef", now=LATER) == first
    more = plan_assignments(wanted(2, 1), ["ada", "ben"], taken=first.assignments)
    second = plan.add(first, more, guideline="c0ffee", now=LATER)
    assert second.assignments == [*mine, *more]
    assert (second.guideline, second.asked_at, second.batches) == ("c0ffee", NOW, 2)
    assert {assignment.assignee for assignment in more} == {"ben"}

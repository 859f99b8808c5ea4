import pytest

from annotation_platform.errors import SettingsError
from annotation_platform.labeling.guidelines import read_guideline, record_guideline
from annotation_platform.schema.ontology import LabelClass, Ontology, RetiredClass
from annotation_platform.storage.objects import LocalObjectStore

FIRST = Ontology.from_names(["person", "boat"])


@pytest.fixture
def store(tmp_path):
    return LocalObjectStore(tmp_path)


def test_every_version_of_the_guidelines_is_kept(store):
    changed = FIRST.model_copy(update={"guidelines": "Boxes round the hull, not the mast."})
    digests = [record_guideline(store, each) for each in (FIRST, changed, FIRST)]
    assert digests[0] == digests[2] != digests[1]
    assert read_guideline(store, digests[0]) == FIRST
    assert read_guideline(store, digests[1]) == changed


def test_what_people_see_makes_a_new_version_and_nothing_else_does():
    painted = Ontology(
        classes=(
            LabelClass(id=0, name="person", color="#ff0000"),
            LabelClass(id=1, name="boat", was=("ship",)),
        ),
        retired=(RetiredClass(id=2, name="kite"),),
    )
    assert painted.guideline == FIRST.guideline
    outlined = Ontology(
        classes=(LabelClass(id=0, name="person"), LabelClass(id=1, name="boat", shape="polygon"))
    )
    assert outlined.guideline != FIRST.guideline


@pytest.mark.parametrize(
    ("later", "message"),
    [
        pytest.param(
            Ontology.from_names(["person"]),
            r"class 1 \(boat\) of earlier rounds is missing.*was: \[boat\].*ontology.retired",
            id="missing without a mapping",
        ),
        pytest.param(
            Ontology.from_names(["boat", "person"]),
            r"class person has id 1, in earlier rounds it had 0",
            id="two ids exchanged",
        ),
        pytest.param(
            Ontology(classes=(LabelClass(id=0, name="person"), LabelClass(id=2, name="boat"))),
            r"class boat has id 2, in earlier rounds it had 1",
            id="another id",
        ),
    ],
)
def test_a_class_neither_goes_nor_changes_its_id_without_a_mapping(store, later, message):
    record_guideline(store, FIRST)
    with pytest.raises(SettingsError, match=message):
        record_guideline(store, later)
    assert len(list(store.list("guidelines"))) == 1


@pytest.mark.parametrize(
    "later",
    [
        pytest.param(
            Ontology(
                classes=(
                    LabelClass(id=0, name="person"),
                    LabelClass(id=1, name="vessel", was=("boat",)),
                )
            ),
            id="renamed",
        ),
        pytest.param(
            Ontology(
                classes=(LabelClass(id=0, name="person"),),
                retired=(RetiredClass(id=1, name="boat", into=(0,)),),
            ),
            id="merged",
        ),
        pytest.param(Ontology.from_names(["person", "boat", "kite"]), id="one more"),
    ],
)
def test_a_mapped_change_is_a_new_version(store, later):
    record_guideline(store, FIRST)
    assert record_guideline(store, later) != FIRST.guideline


@pytest.mark.parametrize(
    ("retired", "message"),
    [
        (RetiredClass(id=0, name="kite"), "class id used twice: 0"),
        (RetiredClass(id=7, name="person"), "class name used twice: person"),
        (RetiredClass(id=7, name="kite", was=("boat",)), "class name used twice: boat"),
        (RetiredClass(id=7, name="kite", into=(9,)), "retired class kite goes into 9"),
    ],
)
def test_an_id_or_a_name_belongs_to_one_class_for_ever(retired, message):
    with pytest.raises(ValueError, match=message):
        Ontology(classes=FIRST.classes, retired=(retired,))

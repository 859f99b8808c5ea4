import random
from dataclasses import replace

import pytest

from annotation_platform.errors import DataError
from annotation_platform.versioning.label_tree import labels_root, prove_label
from tests.core.versioning import sets


def test_every_label_is_proved_and_no_other():
    frame = sets.table(sets.draw_rows(random.Random(1), 120))
    root = labels_root(frame)
    assert labels_root(frame.sample(frac=1, random_state=0).sort_values(
        ["image_id", "label_id"], ignore_index=True)) == root  # fmt: skip
    proofs = [prove_label(frame, label) for label in frame["label_id"]]
    assert all(proof.holds() and proof.root == root for proof in proofs)
    assert proofs[0].text.split("\t")[0] == frame["label_id"][0]
    one, other = proofs[0], proofs[-1]
    assert not replace(one, text=other.text).holds()
    assert not replace(one, path=other.path).holds()
    odd = frame.assign(class_name=frame["class_name"].mask(frame.index == 0, "a\tb\n\\c"))
    strange = prove_label(odd, str(odd["label_id"][0]))
    assert strange.holds()
    assert strange.text.split("\t")[3] == r"a\tb\n\\c"
    # Half of a line is no label, nor are two.
    before, behind = one.neighbours
    assert not replace(one, text=one.text[3:], neighbours=(before + one.text[:3], behind)).holds()
    several = [each for each in proofs if each.neighbours != ("", "")]
    assert several, "no leaf has two labels"
    for each in several:
        line = "".join((each.neighbours[0], each.text, each.neighbours[1]))
        assert not replace(each, text=line, neighbours=("", "")).holds()
    # Anything that a label says is in the root.
    for name, value in (("class_name", "buoy"), ("x1", 0.5), ("split", "test"), ("shape", "none")):
        changed = frame.copy()
        changed.loc[frame.index[frame[name] != value][0], name] = value
        assert labels_root(changed) != root, name
    with pytest.raises(DataError, match="no such label"):
        prove_label(frame, "nothing")


def test_a_node_does_not_pass_for_a_label():
    frame = sets.table(sets.draw_rows(random.Random(2), 3))
    proof = prove_label(frame, str(frame["label_id"][0]))
    before, behind = proof.path[0]
    # What a leaf's parent is made of, put forward as the text of a label one level up.
    inside = bytes.fromhex(before + behind).decode("latin-1") + "\n"
    assert not replace(proof, text=inside, neighbours=("", ""), path=proof.path[1:]).holds()

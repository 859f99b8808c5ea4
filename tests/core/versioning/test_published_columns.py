"""The further columns of labels are in the files of a version once a label uses one."""

import io

import pyarrow.parquet as pq
import pytest

from annotation_platform.schema.shapes import Label
from annotation_platform.schema.tables import TrainingSet
from annotation_platform.schema.tables.shared import NO_EXTRAS
from annotation_platform.storage.table_files import read_table
from annotation_platform.versioning.folder import build_folder
from tests.core.versioning.sets import ONTOLOGY, row, table

ROWS = [row(number, 0, Label.box("ship", 0, 0, 9, 9)) for number in range(20)]
USED = {"attributes": '{"wet": true}', "ignore": True, "track_id": "t", "object_group_id": "g"}


def shards_of(rows):
    texts = build_folder(table(rows), ONTOLOGY, name="set").texts
    return {path: data for path, data in texts.items() if path.startswith("annotations/")}


def test_a_version_whose_labels_use_none_has_the_columns_of_earlier_releases():
    for data in shards_of(ROWS).values():
        held = pq.read_schema(io.BytesIO(data)).names
        assert held == [name for name in TrainingSet.columns if name not in NO_EXTRAS]
        read = read_table(TrainingSet, data)
        assert {name: read[name].fillna("").unique().tolist() for name in NO_EXTRAS} == {
            name: ["" if value is None else value] for name, value in NO_EXTRAS.items()
        }


@pytest.mark.parametrize("name", NO_EXTRAS)
def test_a_column_that_one_label_uses_is_in_every_table_of_the_version(name):
    shards = shards_of([ROWS[0] | {name: USED[name]}, *ROWS[1:]])
    assert shards.keys() == shards_of(ROWS).keys()
    values = []
    for data in shards.values():
        others = set(NO_EXTRAS) - {name}
        assert not others & set(pq.read_schema(io.BytesIO(data)).names)
        values += read_table(TrainingSet, data)[name].fillna("").tolist()
    unused = NO_EXTRAS[name] or type(USED[name])()
    assert sorted(values) == [*[unused] * 19, USED[name]]

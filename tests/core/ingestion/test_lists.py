"""A list of images: what is taken from it, and what is said about the rest, line by line."""

import csv
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from annotation_platform.errors import DataError, FormatError
from annotation_platform.ingestion.arrivals import IncomingFile
from annotation_platform.ingestion.lists import ListEntry, ListProblem, fetch_entries, read_list
from annotation_platform.ingestion.sidecars import read_sidecar

WEB = "https://images.example.org"


@pytest.fixture
def listed(tmp_path):
    """Return a function that reads a list of the given text or bytes."""

    def read(content):
        path = tmp_path / "pictures.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_list(path)

    return read


def problems(found):
    return {problem.line: problem.problem for problem in found.problems}


def test_a_list_gives_locations_names_and_metadata(listed):
    found = listed(
        "name,Location,latitude,longitude,captured_at,licence,Ship name\r\n"
        f"pier/1.jpg,{WEB}/a.jpg?s=1,53.5,-9.9,2026-05-01T12:00:00+02:00,CC-BY-4.0,"
        '"Anna, ""A"""\r\n'
        ",s3://bucket/in/b c.jpg,,,,,=1+1\r\n"
        "\r\n"
        ",pier 4/ü.jpg,,,,,\r\n"
    )
    assert found.problems == []
    assert found.entries == [
        ListEntry(
            2,
            f"{WEB}/a.jpg?s=1",
            "pier/1.jpg",
            {
                "latitude": 53.5,
                "longitude": -9.9,
                "captured_at": "2026-05-01T12:00:00+02:00",
                "licence": "CC-BY-4.0",
                "Ship name": 'Anna, "A"',
            },
        ),
        ListEntry(3, "s3://bucket/in/b c.jpg", "b_c.jpg", {"Ship name": "=1+1"}),
        ListEntry(5, "pier 4/ü.jpg", "ü.jpg", {}),
    ]


@pytest.mark.parametrize("column", ["location", "url", "key", "path", " URL "])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lists_of_other_programs_are_read(listed, column, delimiter, encoding, end):
    rows = [("note", column), ("a;b,c", "1.jpg")]
    text = end.join(delimiter.join(f'"{cell}"' for cell in row) for row in rows)
    assert listed(text.encode(encoding)).entries == [
        ListEntry(2, "1.jpg", "1.jpg", {"note": "a;b,c"})
    ]


def test_bad_records_are_reported_by_line_and_do_not_stop_the_others(listed):
    header = "location,note,latitude,longitude,captured_at"
    rows = [
        "good.jpg,,,,",
        '"two.jpg","a note\nof three\r\nlines",,,',
        "few.jpg,",
        "many.jpg,,,,,",
        ",no location,,,",
        "good.jpg,,,,",
        "../up.jpg,,,,",
        "/etc/passwd,,,,",
        "a\\b.jpg,,,,",
        "file:///etc/passwd,,,,",
        "data:image/png;base64,,,,",
        "ftp://h/a.jpg,,,,",
        "C:/a.jpg,,,,",
        "http:///a.jpg,,,,",
        "s3://bucket,,,,",
        " a.jpg,,,,",
        "nul\0.jpg,,,,",
        'quote.jpg,"a"b,,,',
        "n1.jpg,,north,9,",
        "n2.jpg,,nan,9,",
        "n3.jpg,,1_0,9,",
        'n4.jpg,,"53,5",9,',
        "n5.jpg,,90.001,9,",
        "n6.jpg,,53,-180.5,",
        "n7.jpg,,53,,",
        "t1.jpg,,,,01.05.2026",
        "t2.jpg,,,,2026-02-30",
        "t3.jpg,,,,0001-01-01T00:00:00+14:00",
        "edge.jpg,,-90,180,2026-05-01",
        'open.jpg,"never closed,,,',
    ]
    found = listed("\n".join([header, *rows]))
    assert [(entry.line, entry.location) for entry in found.entries] == [
        (2, "good.jpg"),
        (3, "two.jpg"),
        (32, "edge.jpg"),
    ]
    expected = {
        6: "2 cells, but the header has 5",
        7: "6 cells",
        8: "no location",
        9: "it has the same location as line 2",
        10: "'../up.jpg' leads out",
        11: "'/etc/passwd' leads out",
        12: "leads out",
        13: "'file:'",
        14: "'data:'",
        15: "'ftp:'",
        16: "'C:'",
        17: "'http:'",
        18: "'s3:'",
        19: "blank",
        20: "NUL",
        21: "quotes",
        22: "latitude 'north'",
        23: "latitude 'nan'",
        24: "latitude '1_0'",
        25: "latitude '53,5'",
        26: "latitude '90.001'",
        27: "longitude '-180.5' is not a number of degrees from -180 to 180",
        28: "latitude or longitude is missing",
        29: "captured_at '01.05.2026'",
        30: "captured_at '2026-02-30'",
        31: "captured_at '0001",
        33: "quotes",
    }
    said = problems(found)
    assert said.keys() == expected.keys()
    for line, words in expected.items():
        assert words in said[line]


@pytest.mark.parametrize(
    ("content", "line", "problem"),
    [
        ("", 1, "no column named location"),
        ("name,note\na,b\n", 1, "no column named location"),
        ("location,url\n", 1, "several columns for the location"),
        ("location,note,note\n", 1, "two columns are named 'note'"),
        ("location,licence,LICENCE\n", 1, "two columns are named 'licence'"),
        ("location,,x\n", 1, "a column is named ''"),
        ("location,Labels\n", 1, "a column is named 'labels'"),
        ("location\na.jpg\n" + "x" * 100_001, 3, "a cell of more than 100000 characters"),
        ('location\na.jpg\n"' + "x\n" * 100_000, 3, "a cell of more than 100000 characters"),
        (b"location\n\na\ncaf\xe9.jpg\n", 4, "not UTF-8 text"),
    ],
)
def test_a_file_that_is_no_list_is_refused_as_a_whole(listed, content, line, problem):
    with pytest.raises(FormatError, match=problem) as refused:
        listed(content)
    assert refused.value.line == line


def test_a_list_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(FormatError, match=r"nowhere\.csv: cannot be read: No such file"):
        read_list(tmp_path / "nowhere.csv")


@pytest.mark.parametrize(
    ("location", "name"),
    [
        (f"{WEB}/in/a.jpg?X-Amz-Signature=c0ffee#top", "a.jpg"),
        (f"{WEB}/%2e%2e%2fetc%2Fpasswd", "passwd"),
        (f"{WEB}/..%00%0a%3B.jpg", "___.jpg"),
        (f"{WEB}", "images.example.org"),
        (f"{WEB}/", "image"),
        (f"{WEB}/.hidden", "hidden"),
        (f"{WEB}/a.jpg.part", "a.jpg.part_"),
        ("s3://bucket/in/what?#.jpg", "what__.jpg"),
        ("$(x) `y`;z.jpg", "__x___y__z.jpg"),
    ],
)
def test_a_name_is_made_of_the_location_and_safe(listed, location, name):
    (entry,) = listed(f'location\n"{location}"\n').entries
    assert entry.name == name


def test_a_long_location_gets_a_short_name(listed):
    (entry,) = listed(f"location\n{WEB}/{'ü' * 500}.jpeg\n").entries
    assert len(entry.name) == len("0123456789abcdef.jpeg")


def test_images_of_one_name_are_told_apart_whatever_their_order(listed):
    locations = [f"{WEB}/{folder}/a.jpg" for folder in "xyz"]
    names = {entry.location: entry.name for entry in listed("\n".join(["url", *locations])).entries}
    assert len(set(names.values())) == 3
    assert all(name.startswith("a-") and name.endswith(".jpg") for name in names.values())
    again = listed("\n".join(["url", *reversed(locations), "b.jpg"])).entries
    assert names | {"b.jpg": "b.jpg"} == {entry.location: entry.name for entry in again}


@pytest.mark.parametrize(
    "name", ["../a.jpg", "/a.jpg", "a/.b/c.jpg", ".a.jpg", "a.jpg.part", "x\0"]
)
def test_a_name_that_could_not_land_is_reported(listed, name):
    assert problems(listed(f"location,name\na.jpg,{name}\n")).keys() == {2}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), min_size=1)
)
def test_cells_are_taken_exactly_as_a_program_wrote_them(tmp_path, cells):
    path = tmp_path / "pictures.csv"
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["location", "note"])
        writer.writerows((f"{number}.jpg", cell) for number, cell in enumerate(cells))
    found = read_list(path)
    assert [entry.metadata.get("note", "") for entry in found.entries] == cells
    lines = path.read_bytes().decode().replace("\r\n", "\n").replace("\r", "\n").split("\n")
    assert [lines[entry.line - 1].split(",")[0] for entry in found.entries] == [
        entry.location for entry in found.entries
    ]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.binary(), st.sampled_from([b"location,note,captured_at,latitude,longitude,name\n", b""]))
def test_any_bytes_give_a_list_or_an_error_of_ours(tmp_path, data, header):
    path = tmp_path / "pictures.csv"
    path.write_bytes(header + data)
    try:
        found = read_list(path)
    except FormatError:
        return
    for entry in found.entries:
        read_sidecar(json.dumps(entry.metadata).encode())
    assert all(problem.problem.isprintable() for problem in found.problems)


def test_a_image_that_cannot_be_fetched_is_reported_and_the_others_come(listed):
    asked = []

    def fetch(location):
        asked.append(location)
        if location == "b.jpg":
            raise DataError("b.jpg: answers 404.")
        return location.encode()

    entries = listed("location,licence\na.jpg,CC0\nb.jpg,CC0\nc.jpg,\n").entries
    arrivals = fetch_entries(entries, fetch)
    assert next(arrivals) == IncomingFile("a.jpg", b"a.jpg", {"licence": "CC0"})
    assert asked == ["a.jpg"]
    assert list(arrivals) == [
        ListProblem(3, "b.jpg: answers 404."),
        IncomingFile("c.jpg", b"c.jpg", None),
    ]

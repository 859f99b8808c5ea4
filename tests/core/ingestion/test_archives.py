"""Archives come in whole or not at all: the public evil ones, the same made anew, and chance."""

import bz2
import gzip
import io
import lzma
import os
import stat
import struct
import tarfile
import tracemalloc
import zipfile
import zlib
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from annotation_platform.errors import DataError
from annotation_platform.ingestion.archives import ArchiveLimits, is_archive, read_archive
from annotation_platform.ingestion.arrivals import IncomingFile

PROJECT_ROOT = Path(__file__).parents[3]
DATA = Path(os.environ.get("ANNOTATION_TEST_DATA", PROJECT_ROOT / ".." / "shared" / "data"))

FILES = {
    "a.jpg": b"one",
    "pier 4/ünï\n😀.jpg": b"two" * 100_000,
    "pier 4/empty.jpg": b"",
    "inner.zip": b"PK\3\4, only a file here",
}
PACKERS = {"tar": bytes, "gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}


def zipped(members, *, method=zipfile.ZIP_DEFLATED):
    """Return a zip of pairs: a name or a ZipInfo, and data."""
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", method) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return sink.getvalue()


def tarred(members, *, kind=tarfile.PAX_FORMAT):
    """Return a tar of pairs: a name or a TarInfo, and data."""
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=kind) as archive:
        for name, data in members:
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return sink.getvalue()


def tar_entry(name, kind, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def zip_entry(name, mode):
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, mode << 16
    return info


def patched(data, old, new):
    assert old in data
    return data.replace(old, new)


@pytest.fixture
def place(tmp_path):
    """Return a function that writes an archive, whose name says nothing, and gives its path."""

    def write(data):
        path = tmp_path / "archive.bin"
        path.write_bytes(data)
        return path

    return write


def refusal(path, limits=None):
    """Return why an archive is refused; nothing of it may have been yielded before."""
    taken = []
    with pytest.raises(DataError) as refused:
        taken.extend(read_archive(path, *([limits] if limits else [])))
    assert taken == []
    assert str(refused.value).startswith(str(path))
    return str(refused.value)


@pytest.mark.parametrize("packer", [*PACKERS, "zip"])
def test_every_kind_of_archive_gives_its_files_without_folders_and_junk(place, packer):
    junk = [("__MACOSX/._a.jpg", b"x"), ("pier 4/.DS_Store", b"x"), ("._a.jpg", b"x")]
    members = [("./b//c.jpg", b"three"), *FILES.items(), *junk]
    folder = zipfile.ZipInfo("pier 4/") if packer == "zip" else tar_entry("./", tarfile.DIRTYPE)
    members = [(folder, b""), *members]
    data = zipped(members) if packer == "zip" else PACKERS[packer](tarred(members))
    path = place(data)
    assert is_archive(path)
    assert list(read_archive(path)) == [
        IncomingFile("b/c.jpg", b"three"),
        *(IncomingFile(name, data) for name, data in FILES.items()),
    ]


def test_long_names_and_archives_packed_in_parts_are_read(place):
    name = f"{'d' * 200}/{'e' * 200}.jpg"
    for kind in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        data = tarred([(name, b"data")], kind=kind)
        for pack in (gzip.compress, bz2.compress, lzma.compress):
            path = place(pack(data[:700]) + pack(data[700:]))
            assert list(read_archive(path)) == [IncomingFile(name, b"data")]


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\xff\xd8\xff\xe0" + bytes(600), id="image"),
        pytest.param(b"\xff\xd8\xff\xe0" + zipped([("a", b"b")]), id="zip behind an image"),
        pytest.param(gzip.compress(b"<svg/>" * 200), id="gzip without a tar"),
        pytest.param(b"\x1f\x8b\x08 nothing", id="only the magic number"),
        pytest.param(bytes(10_240), id="zeros"),
    ],
)
def test_what_is_no_archive_by_its_content_is_none(place, data):
    assert not is_archive(place(data))
    assert "neither a zip nor a tar" in refusal(place(data))


def test_links_and_pipes_are_no_archives_and_do_not_hold_up(tmp_path, place):
    (tmp_path / "link.zip").symlink_to(place(zipped(FILES.items())))
    os.mkfifo(tmp_path / "pipe.tar")
    assert not is_archive(tmp_path / "link.zip")
    assert not is_archive(tmp_path / "pipe.tar")
    assert "not a regular file" in refusal(tmp_path / "pipe.tar")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("zipslip.zip", r"'../../evil_marker.jpg' leads out of the folder"),
        ("zipsymlink.zip", "'link.jpg' is a link"),
        ("zipdup.zip", "'a.jpg' is in the archive twice"),
        ("zipbomb_100MB.zip", "'zeros.bin' unpacks to more than 100 times its size"),
    ],
)
def test_the_public_evil_archives_are_refused_whole(tmp_path, name, reason):
    if not (DATA / "evil.tar.gz").is_file():
        pytest.skip(f"the public test data are not at {DATA}; set ANNOTATION_TEST_DATA")
    with tarfile.open(DATA / "evil.tar.gz") as packed:
        packed.extractall(tmp_path, filter="data")
    before = sorted(tmp_path.rglob("*"))
    assert is_archive(tmp_path / "evil" / name)
    assert reason in refusal(tmp_path / "evil" / name)
    assert sorted(tmp_path.rglob("*")) == before


HOSTILE_NAMES = [
    "../up",
    "a/../../up",
    "/etc/passwd",
    "//x",
    "..",
    "c:/x",
    "C:x",
    "a\\..\\x",
    "\\x",
]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.lists(st.text("abc/ü.", min_size=1, max_size=9).filter(lambda n: ".." not in n), max_size=4),
    st.sampled_from(HOSTILE_NAMES),
    st.integers(0, 4),
    st.booleans(),
)
def test_an_archive_with_a_hostile_member_anywhere_yields_nothing(place, names, bad, at, as_zip):
    plain = [name.strip("/") + "x" for name in dict.fromkeys(names)]
    members = [(name, b"data") for name in [*plain[:at], bad, *plain[at:]]]
    refusal(place(zipped(members) if as_zip else tarred(members)))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.sampled_from(
        [
            zipped(FILES.items()),
            zipped(FILES.items(), method=zipfile.ZIP_STORED),
            *(pack(tarred(FILES.items())) for pack in PACKERS.values()),
            tarred([("x" * 150, b"1")], kind=tarfile.GNU_FORMAT),
        ]
    ),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=4),
    st.floats(0, 1),
)
def test_a_damaged_archive_gives_an_error_of_ours_or_its_files(place, data, changes, length):
    spoilt = bytearray(data)
    for where, value in changes:
        spoilt[int(where * (len(spoilt) - 1))] = value
    for variant in (bytes(spoilt), data[: int(length * len(data))]):
        path = place(variant)
        is_archive(path)
        with suppress(DataError):
            list(read_archive(path))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(
            tarred([("ok", b"1"), (tar_entry("l", tarfile.SYMTYPE, "/etc/passwd"), b"")]),
            "'l' is a link",
            id="tar symbolic link",
        ),
        pytest.param(
            tarred([("ok", b"1"), (tar_entry("l", tarfile.LNKTYPE, "ok"), b"")]),
            "'l' is a link",
            id="tar hard link",
        ),
        pytest.param(
            tarred([(tar_entry("p", tarfile.FIFOTYPE), b"")]), "'p' is neither", id="tar pipe"
        ),
        pytest.param(
            tarred([(tar_entry("d", tarfile.BLKTYPE), b"")]), "'d' is neither", id="tar device"
        ),
        pytest.param(
            tarred([(tar_entry("s", tarfile.GNUTYPE_SPARSE), b"")], kind=tarfile.GNU_FORMAT),
            "'s' is neither",
            id="tar sparse file",
        ),
        pytest.param(
            tarred([("a", b"1"), ("./a", b"2")]), "'a' is in the archive twice", id="tar twice"
        ),
        pytest.param(tarred([("a", b"1"), ("a/b", b"2")]), "a file and a folder", id="tar clash"),
        pytest.param(
            tarred(
                [(b"caf\xe9.jpg".decode("utf-8", "surrogateescape"), b"1")],
                kind=tarfile.USTAR_FORMAT,
            ),
            r"caf\\xe9.jpg' is not UTF-8",
            id="tar Latin-1",
        ),
        pytest.param(tarred([("x" * 221, b"1")]), "too long", id="tar long part"),
        pytest.param(tarred([("a", b"1")]) + b"more", "follows its end", id="tar and more"),
        pytest.param(tarred([("a", b"1" * 9000)])[:9000], "damaged", id="tar cut off"),
        pytest.param(
            gzip.compress(tarred(FILES.items()))[:-8] + bytes(8), "damaged", id="gzip checksum"
        ),
        pytest.param(
            zipped([(zip_entry("l", stat.S_IFLNK | 0o777), "/etc/passwd")]),
            "'l' is a link",
            id="zip link",
        ),
        pytest.param(
            zipped([(zip_entry("p", stat.S_IFIFO | 0o777), "")]), "'p' is neither", id="zip pipe"
        ),
        pytest.param(
            patched(
                zipped([("a.jpg", b"1")]), b"PK\1\2\x14\3\x14\0\0\0", b"PK\1\2\x14\3\x14\0\1\0"
            ),
            "'a.jpg' is encrypted",
            id="zip encrypted",
        ),
        pytest.param(
            zipped([("a.jpg", b"1" * 99)], method=zipfile.ZIP_LZMA),
            "not compressed with deflate",
            id="zip lzma",
        ),
        pytest.param(
            zipped([("first.jpg", b"1")]).replace(b"first.jpg", b"other.jpg", 1),
            "differ",
            id="zip local name differs",
        ),
        pytest.param(
            zipped([("a.jpg", b"data")], method=zipfile.ZIP_STORED).replace(b"data", b"dat4"),
            "CRC",
            id="zip checksum",
        ),
        pytest.param(
            zipped([("caf\xe9.jpg", b"1")]).replace(b"caf\xc3\xa9", b"caf\xe9\xe9"),
            r"'caf\\xe9\\xe9.jpg' is not UTF-8",
            id="zip Latin-1",
        ),
        pytest.param(
            zipped([("a?.jpg", b"1")]).replace(b"a?", b"a\0"), "not a file name", id="NUL"
        ),
    ],
)
def test_what_no_image_archive_needs_is_refused_by_name(place, data, reason):
    assert reason in refusal(place(data))


def test_the_message_of_a_hostile_name_can_be_printed(place):
    message = refusal(place(tarred([("../\x1b[31m\n\u202ered", b"1")])))
    assert message.isprintable()
    assert r"'../\x1b[31m\n\u202ered'" in message


def test_each_limit_holds_at_its_edge(place):
    path = place(tarred([("a", b"12345"), ("b", b"123")]))
    # Two headers, two padded files, and the end: tarfile pads it to 10,240 bytes.
    limits = ArchiveLimits(members=2, total_bytes=10_240, member_bytes=5)
    assert len(list(read_archive(path, limits))) == 2
    assert "more than 1 members" in refusal(path, ArchiveLimits(members=1))
    assert "'a' has 5 bytes, at most 4" in refusal(path, ArchiveLimits(member_bytes=4))
    assert "more than 10239 bytes" in refusal(path, ArchiveLimits(total_bytes=10_239))
    path = place(zipped([("a", b"12345"), ("b", b"123")]))
    limits = ArchiveLimits(members=2, total_bytes=8, member_bytes=5)
    assert len(list(read_archive(path, limits))) == 2
    assert "more than 1 members" in refusal(path, ArchiveLimits(members=1))
    assert "'a' has 5 bytes, at most 4" in refusal(path, ArchiveLimits(member_bytes=4))
    assert "more than 7 bytes" in refusal(path, ArchiveLimits(total_bytes=7))


def test_a_zip_that_declares_too_little_does_not_get_past(place):
    zeros = bytes(50_000_000)
    honest = zipped([("zeros.bin", zeros)])
    assert "100 times" in refusal(place(honest))
    for said in (0, 1000, len(zeros) - 1, len(zeros) + 1):
        lie = patched(honest, struct.pack("<L", len(zeros)), struct.pack("<L", said))
        path = place(lie)
        assert "does not have its declared size" in refusal(path, ArchiveLimits(ratio=1e9))
    # Nor with the checksum of the part that it admits to.
    lie = patched(lie, struct.pack("<L", len(zeros) + 1), struct.pack("<L", 1000))
    crc = struct.pack("<L", zlib.crc32(zeros))
    lie = patched(lie, crc, struct.pack("<L", zlib.crc32(bytes(1000))))
    assert "does not have its declared size" in refusal(place(lie))


def test_zip_members_may_not_share_their_bytes(place):
    data = zipped([("a", b"1"), ("b", b"2")])
    second = data.index(b"PK\3\4", 4)
    # The directory's second entry is made to point to the first member.
    at = data.rindex(struct.pack("<L", second) + b"b")
    assert "share their bytes" in refusal(place(data[:at] + bytes(4) + data[at + 4 :]))


@pytest.mark.parametrize("pack", PACKERS.values(), ids=PACKERS)
def test_a_bomb_costs_neither_memory_nor_time(place, pack):
    path = place(pack(tarred([("zeros", bytes(30_000_000))])))
    tracemalloc.start()
    message = refusal(path, ArchiveLimits(total_bytes=20_000_000, ratio=100))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "more than" in message
    # Most of it is the dictionary of xz: 8 MiB, as it is packed here.
    assert most < 10_000_000


def test_a_tar_cannot_make_its_headers_a_burden(place):
    endless = tarfile.TarInfo("././@PaxHeader")
    endless.type = tarfile.XHDTYPE
    filled = tarred([(endless, b"9" * 5_000_000)], kind=tarfile.USTAR_FORMAT)
    assert "a header has 5000000 bytes" in refusal(place(filled))
    many = tarred([(endless, b"14 path=a.jpg\n"), (endless, b"14 path=b.jpg\n")] * 2_000)
    refusal(place(many))
    for record in (b"13 size=-512\n", b"8 path=x\n", b"99 path=x\n", b"path=x\n", b"5 x=\n1"):
        refusal(place(tarred([(endless, record), ("a", b"1" * 600)], kind=tarfile.USTAR_FORMAT)))
    for record in (b"22 GNU.sparse.major=1\n", b"20 GNU.sparse.map=0\n"):
        assert "sparse" in refusal(
            place(tarred([(endless, record), ("a", b"1")], kind=tarfile.USTAR_FORMAT))
        )


def test_an_xz_may_not_ask_for_more_memory_than_any_image_needs(place):
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 1 << 28}]
    assert list(read_archive(place(lzma.compress(tarred([("a", b"1")]), preset=9))))
    greedy = lzma.compress(tarred([("a", b"1")]), filters=filters)
    assert not is_archive(place(greedy))

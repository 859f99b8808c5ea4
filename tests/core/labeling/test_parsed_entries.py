from annotation_platform.labeling.parsed_entries import ParsedEntries


def counting():
    parsed = []

    def parse(entry, number):
        parsed.append((entry, number))
        return entry.split()

    return parsed, parse


def test_an_entry_is_parsed_once_whoever_asks():
    parsed, parse = counting()
    entries = ParsedEntries(parse)
    assert [entries.get(b"a b", 1) for _ in range(3)] == [[b"a", b"b"]] * 3
    assert parsed == [(b"a b", 1)]


def test_another_number_and_other_bytes_are_another_entry():
    # The number is in what is parsed; an erasure leaves other bytes under the same number.
    parsed, parse = counting()
    entries = ParsedEntries(parse)
    entries.get(b"a", 1)
    entries.get(b"a", 2)
    entries.get(b"erased", 1)
    assert len(parsed) == 3


def test_no_more_is_cache_than_fits_and_what_was_used_last_stays():
    parsed, parse = counting()
    entries = ParsedEntries(parse, cached_bytes=4)
    for entry in (b"aa", b"bb", b"aa", b"cc", b"aa", b"bb"):
        entries.get(entry, 1)
    assert [entry for entry, _ in parsed] == [b"aa", b"bb", b"cc", b"bb"]
    entries.get(b"too long", 1)
    entries.get(b"too long", 1)
    assert [entry for entry, _ in parsed].count(b"too long") == 2

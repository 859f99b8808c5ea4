from annotation_platform.storage.cache import Cache


def counting(cache):
    made = []

    def get(key, size):
        def make():
            made.append(key)
            return size, key.split()

        return cache.get(key, make)

    return made, get


def test_a_value_is_made_once_whoever_asks():
    made, get = counting(Cache(9))
    assert [get("a b", 3) for _ in range(3)] == [["a", "b"]] * 3
    assert made == ["a b"]


def test_another_key_is_another_value():
    made, get = counting(Cache(9))
    for key in ("1 a", "2 a", "1 erased"):
        get(key, 1)
    assert len(made) == 3


def test_no_more_is_cached_than_fits_and_what_was_used_last_stays():
    made, get = counting(Cache(4))
    for key in ("aa", "bb", "aa", "cc", "aa", "bb"):
        get(key, 2)
    assert made == ["aa", "bb", "cc", "bb"]
    get("too long", 8)
    get("too long", 8)
    assert made.count("too long") == 2

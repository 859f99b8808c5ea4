"""Daft keeps one engine per process: here this machine's, in ``tests/system/test_ray.py`` Ray."""

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from annotation_platform.errors import SettingsError
from annotation_platform.storage.engine import map_each

by_threads_and_by_processes = pytest.mark.parametrize(
    "processes", [pytest.param(False, id="threads"), pytest.param(True, id="processes")]
)


@dataclass(frozen=True)
class LastIsFirstDone:
    count: int

    def __call__(self, item):
        time.sleep((self.count - item) / 5_000)
        return item


@dataclass(frozen=True)
class Seen:
    """A function that leaves one byte in a file for each call."""

    path: Path

    def __call__(self, item):
        with self.path.open("ab") as file:
            file.write(b".")
        return item

    def calls(self):
        return self.path.stat().st_size


def test_results_come_in_the_order_of_the_items():
    assert list(map_each(LastIsFirstDone(100), range(100))) == list(range(100))


@by_threads_and_by_processes
def test_every_item_comes_back_once_however_many_batches(processes):
    found = list(map_each(hex, range(3_001), processes=processes))
    assert found == [hex(number) for number in range(3_001)]


def test_without_items_there_are_no_results():
    assert list(map_each(hex, [])) == []


def test_the_first_result_is_there_long_before_the_last(tmp_path):
    seen = Seen(tmp_path / "calls")
    results = map_each(seen, range(10_000), processes=False)
    assert next(results) == 0
    assert seen.calls() < 1_000
    results.close()


def test_a_pass_stops_soon_after_its_reader(tmp_path):
    seen = Seen(tmp_path / "calls")
    results = map_each(seen, range(10_000), processes=False)
    for _ in range(100):
        next(results)
    results.close()
    assert 100 <= seen.calls() < 1_000


@by_threads_and_by_processes
def test_an_exception_of_the_function_comes_out_with_its_message(processes):
    items = [*(str(number) for number in range(300)), "not a number"]
    with pytest.raises((ValueError, RuntimeError), match="'not a number'"):
        list(map_each(int, items, processes=processes))


@pytest.mark.parametrize("runner", ["spark", "ray://", "ray://head", "10.0.0.1:", "a b:1"])
def test_an_unknown_runner_is_named_with_its_variable(runner):
    with pytest.raises(SettingsError, match="ANNOTATION_RUNNER") as caught:
        next(map_each(hex, [1], runner=runner))
    assert runner in str(caught.value)


def test_neither_import_nor_pass_loads_what_it_does_not_need():
    code = """if True:
        import os, sys
        from annotation_platform.storage.engine import map_each
        assert not {"daft", "ray"} & set(sys.modules)
        assert list(map_each(hex, [1])) == ["0x1"]
        print(sorted({"ray", "torch", "dvc", "dagster"} & set(sys.modules)), flush=True)
        # On a busy machine Daft's threads crash one interpreter in eighty as it ends.
        os._exit(0)
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    assert done.stderr == ""

"""What the documents tell people to type is there, and what they point to as well."""

import ast
import itertools
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer
import yaml

from annotation_platform.cli import app
from annotation_platform.policy import Policy
from annotation_platform.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "deploy").rglob("*.md")]
)
COMMAND = "annotation-platform"


CODE = sorted(
    path
    for folder in ("annotation_platform", "assets", "resources", "sensors")
    for path in (ROOT / folder).rglob("*.py")
)
SCRIPTS = [
    *(ROOT / name for name in ("Makefile", "dvc.yaml", "params.yaml")),
    *(path for path in (ROOT / "deploy").rglob("*") if path.suffix in {".yaml", ".yml", ".sh"}),
    *(ROOT / ".github").rglob("*.yml"),
]


def name_of(page):
    return str(page.relative_to(ROOT))


def blocks(page, language):
    """Yield the contents of the fenced blocks of a language."""
    yield from re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.M | re.S)


def typed(page):
    """Yield the commands that a page tells to type, in blocks and within sentences."""
    text = page.read_text().replace("\\\n", " ")
    for block in re.findall(r"^```sh\n(.*?)^```", text, re.M | re.S):
        yield from block.splitlines()
    # Of the reference the first part of a line is a command, and the rest its arguments in general.
    prose = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    yield from re.findall(rf"`({COMMAND} [^`]*)`", prose)


def ours(line):
    """Return the words after our command in a line; None if it is about something else."""
    line = line.partition(" # ")[0].partition("  #")[0]
    words = shlex.split(line.replace("…", "..."), comments=True)
    while words and re.match(r"^[A-Z_]+=", words[0]):
        words = words[1:]
    if not words or Path(words[0]).name != COMMAND:
        return None
    ends = [at for at, word in enumerate(words) if word in {"|", "&&", ";", ">"}]
    return words[1 : ends[0] if ends else None]


def found(words):
    """Return the command that words name, and the options and arguments that follow."""
    command, rest = typer.main.get_command(app), list(words)
    while rest and rest[0] in getattr(command, "commands", {}):
        command, rest = command.commands[rest[0]], rest[1:]
    return command, rest


def alternatives(words):
    """Return the commands that words name: `version list|stage` is two of them."""
    path = [word.split("|") for word in words[:2]]
    return [[*chosen, *words[2:]] for chosen in itertools.product(*path)]


def require_known(words, where):
    """Check that words begin with a command, not with a noun alone, and that it has the options."""
    command, rest = found(words)
    assert not hasattr(command, "commands") or not rest or rest[0].startswith("-"), where
    known = {name for each in command.params for name in each.opts + each.secondary_opts}
    options = {
        name for word in rest if word.startswith("--") for name in word.partition("=")[0].split("|")
    }
    assert options <= known | {"--help"}, where


def texts(path):
    """Yield the texts of a module, docstrings included; what an f-string computes is an X."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.JoinedStr):
            yield "".join(
                str(part.value) if isinstance(part, ast.Constant) else "X" for part in node.values
            )
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_every_command_that_a_message_names_is_known():
    named = [
        (path.name, " ".join(line.split()))
        for path in CODE
        for text in texts(path)
        for line in re.findall(rf"`{COMMAND} ([^`]*)`", text)
    ]
    assert len(named) > 20
    for where, line in named:
        for each in alternatives(shlex.split(line)):
            require_known(each, f"{where}: {line}")


def test_every_command_that_a_script_calls_is_known():
    called = [
        (path.name, line)
        for path in SCRIPTS
        for line in re.findall(
            rf"^(?!.*#.*{COMMAND}).*{COMMAND} ([a-z].*)$", path.read_text(), re.M
        )
    ]
    assert {name for name, _ in called} >= {"Makefile", "dvc.yaml"}
    for where, line in called:
        require_known(shlex.split(line), f"{where}: {line}")


@pytest.mark.parametrize(
    "line", ["verify --all", "version verfy", "version verify --everything", "round"]
)
def test_a_command_that_is_not_there_is_noticed(line):
    with pytest.raises(AssertionError):
        require_known([*line.split(), "X"], line)


def test_the_pages_are_built_without_a_warning(tmp_path):
    build = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", ROOT / "docs", tmp_path]
    done = subprocess.run(build, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Ten minutes" in (tmp_path / "index.html").read_text()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_command_there_is_known_with_its_options(page):
    for line in typed(page):
        words = ours(line)
        if words is None or words == ["..."]:
            continue
        for each in alternatives(words):
            require_known(each, line)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_make_target_there_is_known(page):
    known = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    named = set(re.findall(r"`make ([a-z-]+)", page.read_text()))
    for block in blocks(page, "sh"):
        named |= set(re.findall(r"^(?:[A-Z_]+=\S* )*make ([a-z-]+)", block, re.M))
    assert named <= known


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_setting_there_is_known(page):
    known = {f"ANNOTATION_{name.upper()}" for name in Settings.model_fields}
    known |= {"ANNOTATION_TEST_DATA"}
    named = set(re.findall(r"\bANNOTATION_[A-Z_]+", page.read_text()))
    # `ANNOTATION_ALERT_*` means all that begin so.
    starts = {name for name in named if name.endswith("_")}
    assert named - starts <= known
    assert all(any(each.startswith(start) for each in known) for start in starts)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_policy_there_can_be_read(page):
    for block in blocks(page, "yaml"):
        # A digest that is cut short stands for a whole one.
        told = yaml.safe_load(re.sub(r"[0-9a-f]+…", "a" * 64, block))
        if isinstance(told, dict) and set(told) <= set(Policy.model_fields):
            classes = {"ontology": {"classes": [{"id": 0, "name": "any"}]}}
            Policy.model_validate({**classes, **told})


def anchors(page):
    """Return the anchors of a page's headings, as GitHub makes them."""
    heads = re.findall(r"^#+ (.*)$", page.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_leads_somewhere(page):
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"^[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), target
        if anchor and there.suffix == ".md":
            assert anchor in anchors(there), target

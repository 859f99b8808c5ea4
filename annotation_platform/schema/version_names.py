"""Names of dataset versions: tags such as ``training-set@v1.0.0``, and their order."""


def version_tag(dataset: str, version: str) -> str:
    """Return the git tag of a version."""
    return f"{dataset}@v{version}"


def typed_tag(version: str, *, dataset: str = "training-set") -> str:
    """Return the tag for a version given as a tag, as ``1.2.0`` or as ``v1.2.0``."""
    return version if "@" in version else version_tag(dataset, version.removeprefix("v"))


def version_key(version: str) -> tuple[int, ...]:
    """Return the numbers of ``MAJOR.MINOR.PATCH`` as a sort key; other text sorts before them."""
    parts = version.split(".")
    return tuple(map(int, parts)) if all(part.isdecimal() for part in parts) else ()

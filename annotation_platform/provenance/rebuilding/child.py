"""The process that runs a version's own code: reads a request, prints progress and the result.

It is started in the folder of that code, as
``python -m annotation_platform.provenance.rebuilding.child``, by other releases, too. Therefore the
request and the lines of JSON in the response do not change their form.
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from annotation_platform.errors import AnnotationPlatformError
from annotation_platform.ingestion.lake import lake_of
from annotation_platform.policy import parse_policy
from annotation_platform.provenance.rebuilding.derive import derive_version
from annotation_platform.provenance.rebuilding.inputs import read_inputs
from annotation_platform.settings import read_settings


def main() -> None:
    """Rebuild the version in the request on standard input."""
    _require_own_code()
    request = json.load(sys.stdin)
    try:
        lake = lake_of(read_settings())
        derived = derive_version(
            lake,
            read_inputs(lake, request["inputs"], where=request["tag"]),
            parse_policy(request["params"], where=f"{request['tag']}: params.yaml").ontology,
            dataset=request["dataset"],
            folder_md5=request["folder_md5"],
            progress=lambda done, total: _print({"done": done, "total": total}),
        )
    except AnnotationPlatformError as error:
        _print({"error": str(error)})
        return
    _require_own_code()
    _print({"result": asdict(derived)})


def _print(line: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def _require_own_code() -> None:
    """Exit unless every module of the platform in this process is from this folder."""
    for name, module in list(sys.modules.items()):
        path = getattr(module, "__file__", None)
        is_ours = name == "annotation_platform" or name.startswith("annotation_platform.")
        if is_ours and path and not Path(path).resolve().is_relative_to(Path.cwd().resolve()):
            sys.exit(f"{name} was imported from {path}, not from the version's own code.")


if __name__ == "__main__":
    main()

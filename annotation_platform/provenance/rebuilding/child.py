"""What runs of a version's own code: reads a request, prints how far it is and what came out.

It is started in the folder of that code, as
``python -m annotation_platform.provenance.rebuilding.child``, by whatever code is asked to rebuild
the version: so the request and the lines of JSON that answer it keep their form.
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
    """Make a version again as the request on standard input says."""
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
            progress=lambda done, total: _say({"done": done, "total": total}),
        )
    except AnnotationPlatformError as error:
        _say({"error": str(error)})
        return
    _require_own_code()
    _say({"result": asdict(derived)})


def _say(line: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def _require_own_code() -> None:
    """End unless every module of the platform in this process comes from this folder."""
    for name, module in list(sys.modules.items()):
        path = getattr(module, "__file__", None)
        is_ours = name == "annotation_platform" or name.startswith("annotation_platform.")
        if is_ours and path and not Path(path).resolve().is_relative_to(Path.cwd().resolve()):
            sys.exit(f"{name} is that of {path}, not the version's own.")


if __name__ == "__main__":
    main()

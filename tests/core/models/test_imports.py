import subprocess
import sys

from annotation_platform.settings import PROJECT_ROOT

LATE = {"classifier_files", "networks", "samples", "tensor_files", "weight_files"}


def test_importing_the_models_leaves_torch_unimported():
    lines = ["import sys"]
    folder = PROJECT_ROOT / "annotation_platform" / "models"
    for module in sorted({path.stem for path in folder.glob("[a-z]*.py")} - LATE):
        lines.append(f"import annotation_platform.models.{module}")
        lines.append(f"assert not {{'torch', 'torchvision'}} & set(sys.modules), {module!r}")
    subprocess.run([sys.executable, "-c", "\n".join(lines)], cwd=PROJECT_ROOT, check=True)

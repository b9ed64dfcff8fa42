"""`python -m tests.bench.plain`: builds pjsua2 as its authors ship it, and prints the folder that holds it.

What the station is measured against: the same source without our settings and patches, with the assertions
that a default build has. It is kept beside the wheel; the first build takes some three minutes.
"""

import shutil
import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType

BUILD = Path(__file__).parents[2] / "deploy" / "pjsua2" / "build"


def _builder() -> ModuleType:
    loader = SourceFileLoader("pjsua2_build", str(BUILD))
    spec = spec_from_loader(loader.name, loader)
    assert spec is not None
    module = module_from_spec(spec)
    loader.exec_module(module)
    return module


def folder() -> Path:
    """The folder to put on PYTHONPATH, built if it was not yet. Blocks for minutes then."""
    builder = _builder()
    source = builder.debian_source(update=False)
    target = builder.interpreter(sys.executable)
    place = Path(builder.CACHE) / f"plain-{builder.digest(source)[:12]}-{target['soabi']}"
    with builder.locked(place.with_suffix(".lock")):
        if not place.is_dir():
            _build(builder, source, target, place)
    return place


def _build(builder: ModuleType, source: Path, target: dict[str, str], place: Path) -> None:
    work = place.with_suffix(".build")
    shutil.rmtree(work, ignore_errors=True)
    tree, logs, result = work / "tree", work / "logs", work / "result"
    logs.mkdir(parents=True)
    result.mkdir()
    builder.unpack(source, tree, logs)
    (tree / "pjlib/include/pj/config_site.h").write_text("")
    (tree / "pjmedia/src/pjmedia-audiodev/bdimad_dev.c").touch()  # Debian's repack lacks it
    vars(builder)["COMPILER"] = "-O2 -fPIC"
    for made in builder.compile_all(tree, logs, target):
        shutil.copy(made, result)
    result.replace(place)
    shutil.rmtree(work)


if __name__ == "__main__":
    sys.stdout.write(f"{folder()}\n")

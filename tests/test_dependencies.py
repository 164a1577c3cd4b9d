"""Read from the imports: layers point one way, extras stay optional, pretraining cannot reach labels."""

import ast
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "equilidar"

# structures <- ops <- nn <- backbones <- objectives | detection <- training <- tools
# Single modules that know nothing of the package and serve everywhere above it.
BASE = {"atomic_file", "compiled"}
LAYERS = {
    **{part: set() for part in BASE},
    "structures": set(),
    "ops": {"structures"},
    "nn": {"structures", "ops"},
    "backbones": {"structures", "ops", "nn"},
    "objectives": {"structures", "ops", "nn", "backbones"},
    "detection": {"structures", "ops", "nn", "backbones"},
    "augment": {"structures", "ops"},
    "formats": {"structures", *BASE},
    "data": {"structures", "ops", "formats", *BASE},
    "evaluation": {"structures", "ops", "formats", *BASE},
    "flow": {"structures", "ops", "nn", *BASE},
    "checkpoint": {"structures", "backbones", "atomic_file"},
    "report": {"structures", "ops", "data", "evaluation"},
    "testing": {"structures", "ops"},
    "sync_watch": {"structures"},
}
LAYERS["training"] = {*LAYERS} - {"testing", "sync_watch"}
# What the tools of the same names do: above everything else.
LAYERS |= {"doctor": {*LAYERS}, "quickstart": {*LAYERS}}

# Where an optional package is looked for at import or call and its absence is an answer, not an error.
MAY_PROBE = {"ops/_extension.py", "ops/sparse_engine_spconv.py", "doctor.py"}
LABELS = {"equilidar.structures.labelled", "equilidar.structures.boxes"}


def module_name(path, root=ROOT):
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def modules(root=ROOT):
    return {module_name(path, root): path for path in sorted((root / "equilidar").rglob("*.py"))}


def imported(tree):
    """Yield (module, name or None) of every import, wherever it stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative import"
            yield from ((node.module, alias.name) for alias in node.names)


def direct_imports(path, known):
    """Return the package's modules that a file imports; a name that a package re-exports counts as its own module."""
    found = set()
    for module, name in imported(ast.parse(path.read_text())):
        if module.split(".")[0] == "equilidar":
            found.add(resolve(module, name, known))
    return found


def resolve(module, name, known):
    if name is None:
        return module
    if f"{module}.{name}" in known:
        return f"{module}.{name}"
    if module in known and known[module].name == "__init__.py":
        for source, exported in imported(ast.parse(known[module].read_text())):
            if exported == name and source.startswith("equilidar"):
                return resolve(source, exported, known)
    return module


def layer(module):
    return module.split(".")[1] if "." in module else ""


def layer_violations(root=ROOT):
    known = modules(root)
    return [
        f"{name} imports {other}"
        for name, path in known.items()
        for other in sorted(direct_imports(path, known))
        if layer(other) not in {layer(name), "", *LAYERS.get(layer(name), set())}
    ]


def reach(start, known):
    """Return the modules that are imported by `start`, and by those, with who imports them."""
    reached, waiting = {start: None}, [start]
    while waiting:
        module = waiting.pop()
        # Every module of the package loads `structures/__init__`; what counts is the name that it asks for.
        if module not in known or module == "equilidar.structures":
            continue
        for other in direct_imports(known[module], known) - reached.keys():
            reached[other] = module
            waiting.append(other)
    return reached


def is_pretraining(name):
    if layer(name) in ("objectives", "flow", "augment"):
        return name != "equilidar.augment.labelled"
    return False


def pair_readers(known):
    """Return the modules from which pairs come: packed stores, `RecordedPairs` and who builds on it."""
    base = "equilidar.data.recordings"
    return ["equilidar.data.packed"] + [
        name
        for name, path in known.items()
        if layer(name) == "data" and (name == base or base in direct_imports(path, known)) and "labelled" not in name
    ]


def test_every_part_has_its_layer():
    parts = {layer(name) for name in modules()} - {""}
    assert parts <= LAYERS.keys(), "a new part of the package: say in LAYERS what it may see"


def test_layers_have_no_cycle():
    order = []
    while len(order) < len(LAYERS):
        free = [part for part in LAYERS if part not in order and LAYERS[part] <= set(order)]
        assert free, f"cycle among {LAYERS.keys() - set(order)}"
        order += free


def test_dependencies_point_one_way():
    assert layer_violations() == []


def test_a_violation_is_found(tmp_path):
    files = {
        "__init__.py": "",
        "structures/__init__.py": "from equilidar.structures.boxes import Boxes",
        "structures/boxes.py": "class Boxes: ...",
        "ops/__init__.py": "",
        "ops/x.py": "from equilidar.structures import Boxes\ndef f():\n    from equilidar.nn.y import z",
        "nn/__init__.py": "",
        "nn/y.py": "from equilidar.ops.x import f",
    }
    for name, text in files.items():
        (tmp_path / "equilidar" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "equilidar" / name).write_text(text)
    assert layer_violations(tmp_path) == ["equilidar.ops.x imports equilidar.nn.y"]
    assert "equilidar.structures.boxes" in reach("equilidar.nn.y", modules(tmp_path))


def label_modules(known):
    """Return the modules that know labels: types, and what formats say of annotations."""
    return LABELS | {name for name in known if layer(name) == "formats" and name.endswith("_annotations")}


def test_pretraining_cannot_reach_labels():
    known = modules()
    labels = label_modules(known)
    # A format that knows labels says so in its name.
    formats = [name for name in known if layer(name) == "formats" and name not in labels]
    checked = [name for name in known if is_pretraining(name)] + pair_readers(known) + formats
    assert len(checked) > 5 and len(labels) > len(LABELS)
    for name in checked:
        reached = reach(name, known)
        for label in labels & reached.keys():
            chain = [label]
            while reached[chain[-1]] is not None:
                chain.append(reached[chain[-1]])
            pytest.fail(" <- ".join(chain))


def test_labelled_readers_reach_what_formats_say_of_annotations():
    """The test above could pass because it looks in the wrong place."""
    known = modules()
    for name in ("nuscenes", "argoverse2"):
        assert f"equilidar.formats.{name}_annotations" in reach(f"equilidar.data.{name}_labelled", known)


def test_pretraining_module_names_no_label_type():
    known = modules()
    # Loaders serve both ways of training, so only what it imports itself is looked at.
    path = known.get("equilidar.training.pretrain")
    if path is None:
        pytest.skip("no training/pretrain.py")
    found = direct_imports(path, known)
    assert not found & LABELS
    assert not [name for name in found if layer(name) in ("detection", "evaluation") or "labelled" in name]


def statements_on_import(tree):
    """Yield the nodes that run when a module is imported: not those inside functions."""
    waiting = list(tree.body)
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            waiting += ast.iter_child_nodes(node)


def base_packages():
    """Return import names of the base install."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {requirement.split("[")[0].split(">")[0].split("=")[0].strip() for requirement in project["dependencies"]}
    renamed = {"pytorch-lightning": {"pytorch_lightning", "lightning_fabric"}, "hydra-core": {"hydra", "omegaconf"}}
    return set().union(*(renamed.get(name, {name}) for name in names))


def test_optional_packages_are_imported_inside_functions_only():
    allowed = base_packages() | set(sys.stdlib_module_names) | {"equilidar"}
    found = []
    for name, path in modules().items():
        for node in statements_on_import(ast.parse(path.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                found += [
                    f"{name} imports {module}" for module, _ in imported(node) if module.split(".")[0] not in allowed
                ]
    assert found == []


def test_a_missing_package_is_an_error_unless_it_may_be_probed():
    """Elsewhere `except ImportError` may only raise anew, with a message that names the extra."""
    found = []
    for path in PACKAGE.rglob("*.py"):
        if path.relative_to(PACKAGE).as_posix() in MAY_PROBE:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ExceptHandler) and node.type is not None:
                caught = {n.id for n in ast.walk(node.type) if isinstance(n, ast.Name)}
                if caught & {"ImportError", "ModuleNotFoundError"} and not isinstance(node.body[-1], ast.Raise):
                    found.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert found == []

"""The import directions of docs/design.md, read from the source with `ast`."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TORCH = {"torch", "torchvision", "safetensors"}
TORCH_ROOMS = {"transforms", "backbones", "finetuning", "features"}
ARROW_ROOMS = {  # storage, object_store: filesystems; tables: Parquet; the others hand tables on
    "storage",
    "object_store",
    "tables",
    "findings",
    "certainty",
    "run_directory",
    "distributed.reading",
    "distributed.choosing",
    "distributed.checkpoints",
    "distributed.probing",
    "distributed.training",
    "distributed.sampling",
    "estimates",
}
HEAVY = ("torch", "ray", "numpy", "sklearn", "scipy", "pyarrow", "numba", "matplotlib", "pydantic")


def name_of(file):
    parts = file.relative_to(ROOT / "dcai_ray").with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__") or "__init__"


ROOMS = {name_of(file): file for file in sorted((ROOT / "dcai_ray").rglob("*.py"))}


def imports(file):
    """(dotted target, whether it runs when the module is loaded) of every import of a file."""
    tree = ast.parse(file.read_text())
    late = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for inner in ast.walk(node)
    }
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {(alias.name, id(node) not in late) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file.name}: relative import"
            found |= {(f"{node.module}.{alias.name}", id(node) not in late) for alias in node.names}
    return found


def packages(room, *, early=False):
    """Top-level packages a room imports; with `early`, those it needs to be loaded at all."""
    return {name.split(".")[0] for name, top in imports(ROOMS[room]) if top or not early}


def rooms_used(room, *, early=False):
    """Our own rooms that a room imports, the longest dotted name that is one."""
    used = set()
    for name, top in imports(ROOMS[room]):
        if name.startswith("dcai_ray.") and (top or not early):
            parts = name.split(".")[1:]
            while ".".join(parts) not in ROOMS and parts:
                parts.pop()
            used.add(".".join(parts) or "__init__")
    return used


def reached(room):
    """Every room that is loaded when this one is."""
    seen, waiting = set(), {room}
    while waiting:
        seen |= waiting
        waiting = {used for one in waiting for used in rooms_used(one, early=True)} - seen
    return seen


def test_the_reader_of_imports_sees_early_and_late_ones(tmp_path):
    file = tmp_path / "room.py"
    file.write_text("import a.b\nif 1:\n    from c import d\ndef f():\n    import e\n")
    assert imports(file) == {("a.b", True), ("c.d", True), ("e", False)}


def test_valuation_imports_itself_and_numerics_only():
    inside = [room for room in ROOMS if room.split(".")[0] == "valuation"]
    assert "valuation.knn_shapley" in inside
    allowed = {"numpy", "numba", "scipy", "sklearn", "dcai_ray"} | sys.stdlib_module_names
    for room in inside:
        assert packages(room) <= allowed, room
        assert all(used.split(".")[0] == "valuation" for used in rooms_used(room)), room


def test_torch_is_imported_in_its_rooms_and_inside_tasks_only():
    users = {room for room in ROOMS if packages(room) & TORCH}
    assert users == TORCH_ROOMS | {"distributed.tasks"}
    assert not packages("distributed.tasks", early=True) & TORCH


def test_no_other_room_loads_torch_when_it_is_loaded():
    loading = {
        room for room in ROOMS if any(packages(r, early=True) & TORCH for r in reached(room))
    }
    assert loading == TORCH_ROOMS


def test_ray_is_imported_under_distributed_only():
    users = {room for room in ROOMS if "ray" in packages(room)}
    assert users
    assert all(room.startswith("distributed.") for room in users)


def test_pyarrow_is_imported_where_tables_are_made_only():
    assert {room for room in ROOMS if "pyarrow" in packages(room)} == ARROW_ROOMS


def test_pure_rooms_never_import_distributed():
    users = {
        room
        for room in ROOMS
        if any(used.split(".")[0] == "distributed" for used in rooms_used(room))
    }
    assert users - {room for room in ROOMS if room.startswith("distributed")} == {
        "commands",
        "estimates",  # inside a function: notebooks ask for Ray by an argument
    }
    assert not any(room.startswith("distributed") for room in reached("commands"))


def test_no_room_imports_the_command_line():
    assert {room for room in ROOMS if "cli" in rooms_used(room)} == set()
    assert {room for room in ROOMS if "commands" in rooms_used(room)} == {"cli"}


@pytest.mark.parametrize("script", sorted((ROOT / "jobs").glob("*.py")), ids=lambda path: path.name)
def test_jobs_import_the_command_line_and_nothing_else_of_ours(script):
    ours = {name for name, _ in imports(script) if name.split(".")[0] == "dcai_ray"}
    assert ours
    assert all(name.startswith("dcai_ray.cli") for name in ours)
    others = {name.split(".")[0] for name, _ in imports(script)} - {"dcai_ray"}
    assert others <= sys.stdlib_module_names


def test_the_command_line_loads_the_standard_library_only():
    for room in ("__init__", "cli"):
        assert packages(room, early=True) <= sys.stdlib_module_names | {"dcai_ray"}
    assert reached("cli") <= {"cli", "__init__"}


def test_no_two_rooms_need_each_other_to_be_loaded():
    for room in set(ROOMS) - {"__init__", "valuation", "distributed"}:
        below = {one for used in rooms_used(room, early=True) - {room} for one in reached(used)}
        assert room not in below, room


@pytest.mark.parametrize(
    "code",
    [
        "import dcai_ray",
        "import runpy; sys.argv = ['dcai-ray', '--help']\n"
        "try: runpy.run_module('dcai_ray.cli', run_name='__main__')\n"
        "except SystemExit as end: assert end.code == 0",
    ],
    ids=["import", "help"],
)
def test_nothing_heavy_is_loaded_by(code):
    show = f"import sys\n{code}\nprint('heavy:', *({set(HEAVY)!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", show], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1].strip() == "heavy:"


def test_the_lazy_public_names_are_all_there():
    import dcai_ray

    assert all(callable(getattr(dcai_ray, name)) for name in dcai_ray.__all__[1:])
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = dcai_ray.nonsense

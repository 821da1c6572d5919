"""The import directions of docs/design.md, read from the source with `ast`: one rule per folder."""

import ast
import configparser
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# What each folder, and each file at the top, may import of ours besides itself.
PURE = {"valuation", "storage", "errors"}
ALLOWED = {
    "errors": set(),
    "valuation": {"errors"},
    "storage": {"errors", "progress"},
    "progress": set(),
    "config": {"cleaning", "storage", "errors"},
    "run_directory": {"config", *PURE},
    "images": {"review", "run_directory", "config", "progress", *PURE},
    "networks": {"images", "config", "progress", *PURE},
    "cleaning": PURE,
    "cluster": {"run_directory", "config", "progress", *PURE},
    "steps": {"cluster", "networks", "images", "cleaning", "review", "run_directory", "config",
              "progress", *PURE},
    "report": {"cleaning", "images", "review", "run_directory", "config", "progress", "__init__",
               *PURE},
    "review": {"run_directory", "config", "progress", *PURE},
    "notebook": {"steps", "report", "run_directory", "config", *PURE},
    "api": {"cluster", "run_directory", "config", *PURE},
    "cli": {"steps", "report", "review", "cluster", "images", "run_directory", "config",
            "progress", "__init__", *PURE},
    "__init__": {"api", *PURE},
}  # fmt: skip
# The one folder that may import a package; inside functions of `steps.tasks`, workers may too.
OWNERS = {
    "ray": {"cluster"},
    "torch": {"networks"},
    "torchvision": {"networks"},
    "safetensors": {"networks"},
    "timm": {"networks"},
    "transformers": {"networks"},
    "huggingface_hub": {"networks", "storage"},
    "pyarrow.fs": {"storage"},
    "tyro": {"cli"},
    "jinja2": {"report"},
    "aiohttp": {"report"},
    "matplotlib": {"report"},
}
LATE = {"safetensors": {"steps.tasks"}, "torch": {"steps.tasks"}}
HEAVY = ("torch", "ray", "numpy", "sklearn", "scipy", "pyarrow", "numba", "matplotlib", "pydantic")


def name_of(file):
    parts = file.relative_to(ROOT / "dcai_ray").with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__") or "__init__"


MODULES = {name_of(file): file for file in sorted((ROOT / "dcai_ray").rglob("*.py"))}


def folder(module):
    """The folder that a module lies in; a file at the top stands for itself."""
    return module.split(".")[0]


@cache
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


def targets(module, *, early=False):
    """Dotted targets a module imports; with `early`, those it needs to be loaded at all."""
    return {name for name, top in imports(MODULES[module]) if top or not early}


def uses(module, package, *, early=False):
    """Whether a module imports a package or anything below it."""
    return any(f"{name}.".startswith(f"{package}.") for name in targets(module, early=early))


def modules_used(module, *, early=False):
    """Our own modules that a module imports, the longest dotted name that is one."""
    used = set()
    for name in targets(module, early=early):
        if folder(name) == "dcai_ray":
            parts = name.split(".")[1:]
            while ".".join(parts) not in MODULES and parts:
                parts.pop()
            used.add(".".join(parts) or "__init__")
    return used


@cache
def reached(module):
    """Every module that is loaded when this one is."""
    seen, waiting = set(), {module}
    while waiting:
        seen |= waiting
        waiting = {used for one in waiting for used in modules_used(one, early=True)} - seen
    return seen


def test_the_reader_of_imports_sees_early_and_late_ones(tmp_path):
    file = tmp_path / "module.py"
    file.write_text("import a.b\nif 1:\n    from c import d\ndef f():\n    import e\n")
    assert imports(file) == {("a.b", True), ("c.d", True), ("e", False)}


@pytest.mark.parametrize("module", MODULES)
def test_imports_between_folders_go_one_way(module):
    others = {folder(used) for used in modules_used(module)} - {folder(module)}
    assert others <= ALLOWED[folder(module)]


@pytest.mark.parametrize("package", OWNERS)
def test_a_package_is_imported_in_its_folder_only(package):
    users = {module for module in MODULES if uses(module, package)}
    assert users, f"nobody imports {package}"
    late = LATE.get(package, set())
    assert {folder(module) for module in users - late} <= OWNERS[package]
    assert not any(uses(module, package, early=True) for module in users & late)


@pytest.mark.parametrize("package", ["torch", "ray"])
def test_no_other_folder_loads_a_framework_when_it_is_loaded(package):
    loading = {
        module
        for module in MODULES
        if any(uses(other, package, early=True) for other in reached(module))
    }
    reaching = {"networks"} if package == "torch" else {"cluster", "steps"}
    assert {folder(module) for module in loading} == reaching


def test_valuation_imports_numerics_only():
    allowed = {"numpy", "numba", "scipy", "sklearn", "dcai_ray"} | sys.stdlib_module_names
    inside = [module for module in MODULES if folder(module) == "valuation"]
    assert "valuation.knn_shapley" in inside
    for module in inside:
        assert {folder(name) for name in targets(module)} <= allowed, module


@pytest.mark.parametrize("script", sorted((ROOT / "jobs").glob("*.py")), ids=lambda path: path.name)
def test_jobs_import_the_command_line_and_nothing_else_of_ours(script):
    found = {name for name, _ in imports(script)}
    ours = {name for name in found if folder(name) == "dcai_ray"}
    assert ours
    assert all(name.startswith("dcai_ray.cli") for name in ours)
    assert {folder(name) for name in found - ours} <= sys.stdlib_module_names


def test_the_command_line_loads_the_standard_library_only():
    assert reached("cli") <= {"cli", "cli.main", "errors", "__init__"}
    for module in reached("cli"):
        loaded = {folder(name) for name in targets(module, early=True)}
        assert loaded <= sys.stdlib_module_names | {"dcai_ray"}


def test_no_two_modules_need_each_other_to_be_loaded():
    for module in set(MODULES) - {"__init__", "valuation", "cli"}:
        below = {
            one for used in modules_used(module, early=True) - {module} for one in reached(used)
        }
        assert module not in below, module


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


@pytest.mark.parametrize(
    ("code", "unneeded"),
    [
        (
            "import dcai_ray.cluster.task_pool, dcai_ray.steps.tasks",
            ("torch", "sklearn", "scipy", "numba"),
        ),
        (
            "from dcai_ray.valuation.knn_shapley import vote_chances\n"
            "from dcai_ray.valuation.semivalues import size_weights\n"
            "import dcai_ray.cluster.chains\n"
            "vote_chances(9, 3), size_weights('shapley', 9), size_weights('leave-one-out', 9)",
            ("torch", "sklearn", "scipy.stats"),
        ),
        (
            "import dcai_ray.networks.features\n"
            "from dcai_ray.networks.heads import feature_extractor\n"
            "feature_extractor('efficientnet_lite0', 'none', 64)",
            ("torchvision", "torch._dynamo", "sklearn"),
        ),
    ],
    ids=["a task", "a chain", "an extraction"],
)
def test_a_worker_loads_nothing_heavy_before_it_is_needed(code, unneeded):
    show = f"import sys\n{code}\nprint('unneeded:', *({set(unneeded)!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", show], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1].strip() == "unneeded:"


def test_the_lazy_public_names_are_all_there():
    import dcai_ray

    assert all(callable(getattr(dcai_ray, name)) for name in dcai_ray.__all__[1:])
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = dcai_ray.nonsense


def test_every_file_of_the_package_goes_into_a_wheel():
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    patterns = [p.strip() for p in settings["options.package_data"]["*"].split(",")]
    others = [
        path
        for path in (ROOT / "dcai_ray").rglob("*")
        if path.is_file() and path.suffix != ".py" and "__pycache__" not in path.parts
    ]
    assert len(others) > 5
    for path in others:
        assert any(path.match(pattern) for pattern in patterns), path
        assert (path.parent / "__init__.py").exists(), path

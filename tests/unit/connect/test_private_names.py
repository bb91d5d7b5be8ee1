"""Private names of asyncssh are used in one folder, which `self_check` knows; by the source, whatever is imported."""

import ast
import inspect
from pathlib import Path

import asyncssh
import pytest

import fleetmem

_SOURCE = Path(fleetmem.__file__).parent
_FOLDER = _SOURCE / "connect" / "asyncssh_private"
_LIBRARY = Path(asyncssh.__file__).parent


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name != "_"  # that one is a word of all code


def _names_in(tree: ast.AST) -> frozenset[str]:
    """Returns the private names that some source uses: of attributes, functions, methods and classes."""
    names: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(attr=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                names.add(name)
            case ast.ClassDef(name=name) | ast.Name(id=name, ctx=ast.Store()):
                names.add(name)
            case _:
                pass
    return frozenset(filter(_is_private, names))


_NAMES = frozenset().union(*(_names_in(ast.parse(path.read_text())) for path in _LIBRARY.glob("*.py")))


def _own_names(tree: ast.Module) -> set[str]:
    """Returns the private names that a module gives to what is its own: of itself, its classes and their objects."""
    names: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                names.add(name)
            case ast.Attribute(value=ast.Name("self" | "cls"), attr=name, ctx=ast.Store()):
                names.add(name)
            case ast.Name(id=name, ctx=ast.Store()):
                names.add(name)
            case _:
                pass
    return names


def _inherited(class_: ast.ClassDef) -> frozenset[str]:
    """Returns the private names that a class has from asyncssh."""
    bases = [node.attr for base in class_.bases for node in ast.walk(base) if isinstance(node, ast.Attribute)]
    classes = [each for name in bases for each in getattr(asyncssh, name, object).__mro__]
    sources = [inspect.getsource(each) for each in classes if each.__module__.startswith("asyncssh.")]
    return frozenset().union(*(_names_in(ast.parse(source)) for source in sources))


def uses(text: str) -> list[str]:
    """Returns where a module uses names of asyncssh that are not public, as `line: name`."""
    tree = ast.parse(text)
    own = _own_names(tree)
    found: list[tuple[int, str]] = []
    for node in ast.walk(tree):
        match node:
            case ast.ImportFrom(module=str(module)) if module.startswith("asyncssh."):
                found.append((node.lineno, module))
            case ast.Import(names=aliases):
                found += [(node.lineno, alias.name) for alias in aliases if alias.name.startswith("asyncssh.")]
            case ast.Attribute(value=ast.Name("asyncssh"), attr=name) if name not in asyncssh.__all__:
                if not name.startswith(("DISC_", "OPEN_", "SIG")):  # constants of its documentation
                    found.append((node.lineno, f"asyncssh.{name}"))
            case ast.Attribute(value=ast.Name("self" | "cls")):
                pass
            case ast.Attribute(attr=name) | ast.Constant(value=str(name)) if name in _NAMES and name not in own:
                found.append((node.lineno, name))
            case _:
                pass
    for class_ in (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)):
        inherited = _inherited(class_)
        for node in ast.walk(class_):
            match node:
                case ast.Attribute(value=ast.Name("self"), attr=name) if name in inherited:
                    found.append((node.lineno, f"self.{name}"))
                case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) if name in inherited:
                    found.append((node.lineno, f"def {name}"))
                case _:
                    pass
    return [f"{line}: {name}" for line, name in sorted(found)]


@pytest.mark.slow
def test_they_are_used_in_one_folder() -> None:
    """Nowhere else, in no way."""
    modules = [path for path in _SOURCE.rglob("*.py") if _FOLDER not in path.parents and _speaks_ssh(path)]
    assert len(modules) > 10
    found = {str(path.relative_to(_SOURCE)): uses(path.read_text()) for path in modules}
    assert not {module: places for module, places in found.items() if places}


def _speaks_ssh(path: Path) -> bool:
    return "asyncssh" in path.read_text()


@pytest.mark.slow
def test_they_are_found_where_they_are() -> None:
    """The folder itself is full of them."""
    assert len(uses((_FOLDER / "pipelined.py").read_text())) > 40


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("connection._inpbuf", "_inpbuf"),
        ("self._connection._recv_handler = None", "_recv_handler"),
        ("setattr(connection, '_kex_algs', [])", "_kex_algs"),
        ("from asyncssh.packet import String", "asyncssh.packet"),
        ("import asyncssh.kex", "asyncssh.kex"),
        ("asyncssh.connection.SSHConnection", "asyncssh.connection"),
        ("class C(asyncssh.SSHClientConnection):\n  def f(self): return self._inpbuf", "self._inpbuf"),
        ("class C(asyncssh.SSHClientConnection):\n  def _recv_version(self): pass", "def _recv_version"),
    ],
)
def test_each_way_to_use_one(text: str, name: str) -> None:
    """Read, set, by its name as text, imported, inherited, overridden."""
    assert name in {place.partition(": ")[2] for place in uses(text)}

"""A real Graphite: carbon, whisper and graphite-web from PyPI, in a virtual environment and directory of their own."""

import configparser
import ctypes
import ctypes.util
import io
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from fleetmem.errors import LabError
from fleetmem.lab.directory import Directory, write_private
from fleetmem.lab.process import Command, indented_tail

REQUIREMENTS = ("carbon==1.1.10", "whisper==1.1.10", "graphite-web==1.1.10")
RETENTION = "1h"
"""How long a lab's Graphite keeps values."""

_SETTINGS_MODULE = "lab_settings"
_MARKER = "installed-by-fleetmem-lab"
_INSTALL_SECONDS = 600.0
_PREPARE_SECONDS = 60.0
_BUILD_REQUIREMENTS = ("setuptools<81", "wheel", "legacy-cgi; python_version >= '3.13'")

# Graphite 1.1.10 was written for Python 3.8 to 3.11. From what 3.12 removed it needs two old names, and a
# module that it imports but uses for plug-ins only; setuptools brings back distutils, for its Django.
_COMPATIBILITY = """\
import configparser, importlib.util, sys, types

if sys.version_info >= (3, 12):
    configparser.SafeConfigParser = configparser.ConfigParser
    configparser.ConfigParser.readfp = configparser.ConfigParser.read_file
if importlib.util.find_spec("imp") is None:
    sys.modules["imp"] = types.ModuleType("imp")
"""
_COMPATIBILITY_MODULE = "lab_compatibility"

_CARBON = """\
[cache]
MAX_CREATES_PER_MINUTE = inf
MAX_UPDATES_PER_SECOND = inf
CARBON_METRIC_INTERVAL = 0
ENABLE_TAGS = False
LOG_CREATES = False
LOG_UPDATES = False
LOG_CACHE_HITS = False
"""

_SCHEMAS = """\
[lab]
pattern = .*
retentions = {interval_seconds}s:{retention}
"""

_AGGREGATION = """\
[lab]
pattern = .*
xFilesFactor = 0
aggregationMethod = max
"""

_INTERFACES = ("LINE_RECEIVER_INTERFACE", "PICKLE_RECEIVER_INTERFACE", "CACHE_QUERY_INTERFACE")

_SETTINGS = """\
from graphite.settings import *

SECRET_KEY = {secret!r}
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]
DEBUG = False
TIME_ZONE = "UTC"
CONF_DIR = {conf!r}
STORAGE_DIR = {storage!r}
WHISPER_DIR = STORAGE_DIR + "/whisper"
STANDARD_DIRS = [WHISPER_DIR]
INDEX_FILE = STORAGE_DIR + "/index"
LOG_DIR = STORAGE_DIR + "/log/webapp"
CARBONLINK_HOSTS = ["127.0.0.1:{query_port}"]
WEBAPP_DIR = {webapp!r}
STATICFILES_DIRS = [WEBAPP_DIR + "/content"]
DATABASES = {{"default": {{"ENGINE": "django.db.backends.sqlite3", "NAME": STORAGE_DIR + "/graphite.db"}}}}
"""


def install(directory: Directory, report: Callable[[str], None]) -> None:
    """Installs Graphite where it is not there yet.

    Args:
        directory: of the lab.
        report: told what is being done.

    Raises:
        LabError: the cairo library is missing, or pip fails; with the end of its output.
    """
    marker = directory.venv / _MARKER
    wanted = "\n".join((*_BUILD_REQUIREMENTS, *REQUIREMENTS, _COMPATIBILITY))
    if marker.is_file() and marker.read_text(encoding="utf-8") == wanted:
        return
    _need_cairo(report)
    started = time.monotonic()
    report(f"Graphite, first time only: making a virtual environment in {directory.venv}")
    _run("venv", [sys.executable, "-P", "-m", "venv", "--clear", str(directory.venv)], {}, _INSTALL_SECONDS)
    report(f"Graphite: installing {', '.join(REQUIREMENTS)} with pip; takes about 20 s")
    _pip_install(directory, *_BUILD_REQUIREMENTS)
    _add_compatibility(directory)
    _pip_install(directory, "--no-build-isolation", *REQUIREMENTS)  # isolated, it would not see our module
    report(f"Graphite: installed in {time.monotonic() - started:.0f} s")
    marker.write_text(wanted, encoding="utf-8")


def _add_compatibility(directory: Directory) -> None:
    """Has Python in the virtual environment load our module at each start, as `site` does for .pth files."""
    (packages,) = (directory.venv / "lib").glob("python*/site-packages")
    (packages / f"{_COMPATIBILITY_MODULE}.py").write_text(_COMPATIBILITY, encoding="utf-8")
    (packages / f"{_COMPATIBILITY_MODULE}.pth").write_text(f"import {_COMPATIBILITY_MODULE}\n", encoding="utf-8")


def _pip_install(directory: Directory, *arguments: str) -> None:
    pip = [*_python(directory), "-m", "pip", "install", "--disable-pip-version-check", *arguments]
    _run("pip", pip, {"GRAPHITE_NO_PREFIX": "True"}, _INSTALL_SECONDS)


def _need_cairo(report: Callable[[str], None]) -> None:
    """Makes sure that the C library is there which graphite-web draws with."""
    if _has_cairo():
        return
    if os.geteuid() == 0 and shutil.which("apt-get"):
        report("Graphite draws with the cairo library: installing libcairo2 with apt-get")
        environment = {"DEBIAN_FRONTEND": "noninteractive"}
        _run("apt-get update", ["apt-get", "update", "-q"], environment, _INSTALL_SECONDS)
        install_it = ["apt-get", "install", "-q", "-y", "--no-install-recommends", "libcairo2"]
        _run("apt-get install", install_it, environment, _INSTALL_SECONDS)
    if not _has_cairo():
        raise LabError(
            "Graphite draws with the cairo library, which is not installed here:\n"
            "    Debian, Ubuntu   sudo apt-get install libcairo2\n"
            "    Fedora, RHEL     sudo dnf install cairo\n"
            "    macOS            brew install cairo\n"
            "or start the lab with --hosts-only"
        )


def _has_cairo() -> bool:
    for name in (ctypes.util.find_library("cairo"), "libcairo.so.2"):
        if name:
            with suppress(OSError):
                ctypes.CDLL(name)
                return True
    return False


def _run(what: str, argv: Sequence[str], environment: Mapping[str, str], seconds: float) -> None:
    """Runs a program to its end.

    Raises:
        LabError: it fails or takes too long; with the end of its output.
    """
    try:
        done = subprocess.run(
            argv,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise LabError(f"{what} is not done after {seconds:.0f} s") from error
    if done.returncode != 0:
        tail = indented_tail(done.stdout.decode("utf-8", "replace"))
        raise LabError(f"{what} failed with status {done.returncode}; its output ends with:\n{tail}")


def _python(directory: Directory) -> list[str]:
    # -P: a file in the current directory must not take the place of a module.
    return [str(directory.venv / "bin" / "python"), "-P"]


@dataclass(frozen=True, slots=True)
class StorageRules:
    """What Graphite keeps and how fast it takes it: the text of carbon's configuration files.

    Attributes:
        carbon: carbon.conf; folders, addresses and ports in it are overridden.
        schemas: storage-schemas.conf.
        aggregation: storage-aggregation.conf.
    """

    carbon: str
    schemas: str
    aggregation: str


def lab_rules(interval_seconds: int) -> StorageRules:
    """Returns the rules of a lab: one archive of an hour, files as fast as they come.

    Args:
        interval_seconds: whisper's step.
    """
    schemas = _SCHEMAS.format(interval_seconds=interval_seconds, retention=RETENTION)
    return StorageRules(_CARBON, schemas, _AGGREGATION)


def read_rules(folder: Path) -> StorageRules:
    """Returns the rules of a deployment, from carbon's files as they are called in its `conf` folder."""
    names = ("carbon.conf", "storage-schemas.conf", "storage-aggregation.conf")
    return StorageRules(*((folder / name).read_text(encoding="utf-8") for name in names))


def _carbon_conf(text: str, places: Mapping[str, str]) -> str:
    """Returns a carbon.conf whose cache is in other places."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment]  # names are upper case
    parser.read_string(text)
    parser["cache"].update(places)
    written = io.StringIO()
    parser.write(written)
    return written.getvalue()


class GraphiteServers:
    """Carbon and Graphite's web server, configured for one run of a lab; storage begins empty."""

    def __init__(self, directory: Directory, rules: StorageRules, ports: Sequence[int]) -> None:
        """Writes configuration.

        Args:
            directory: of the lab.
            rules: what carbon keeps.
            ports: four free ones, for carbon's lines, pickles and queries, and for the web server.
        """
        self.line_port, pickle_port, query_port, self.web_port = ports
        self._directory = directory
        self._conf = directory.graphite / "conf"
        self._storage = directory.graphite / "storage"
        shutil.rmtree(directory.graphite, ignore_errors=True)
        for path in (self._conf, self._storage / "whisper", self._storage / "log" / "webapp"):
            path.mkdir(parents=True)
        places = {
            "STORAGE_DIR": str(self._storage),
            "LOCAL_DATA_DIR": str(self._storage / "whisper"),
            "CONF_DIR": str(self._conf),
            "LOG_DIR": str(self._storage / "log"),
            "PID_DIR": str(self._storage),
            "LINE_RECEIVER_PORT": str(self.line_port),
            "PICKLE_RECEIVER_PORT": str(pickle_port),
            "CACHE_QUERY_PORT": str(query_port),
        } | dict.fromkeys(_INTERFACES, "127.0.0.1")
        settings = _SETTINGS.format(
            conf=str(self._conf),
            storage=str(self._storage),
            query_port=query_port,
            webapp=str(directory.venv / "webapp"),
            secret=secrets.token_urlsafe(50),
        )
        self._write(self._conf / "carbon.conf", _carbon_conf(rules.carbon, places))
        self._write(self._conf / "storage-schemas.conf", rules.schemas)
        self._write(self._conf / "storage-aggregation.conf", rules.aggregation)
        self._write(directory.graphite / f"{_SETTINGS_MODULE}.py", settings)

    def _write(self, path: Path, text: str) -> None:
        write_private(path, text.encode())

    @property
    def _environment(self) -> dict[str, str]:
        return {
            "GRAPHITE_ROOT": str(self._directory.graphite),
            "PYTHONPATH": str(self._directory.graphite),
            "DJANGO_SETTINGS_MODULE": _SETTINGS_MODULE,
            "PYTHONWARNINGS": "ignore",
        }

    @property
    def url(self) -> str:
        """Where the web server is."""
        return f"http://127.0.0.1:{self.web_port}"

    def carbon(self) -> Command:
        """Returns the command of carbon's cache daemon."""
        script = str(self._directory.venv / "bin" / "carbon-cache.py")
        config = f"--config={self._conf / 'carbon.conf'}"
        argv = [*_python(self._directory), script, config, "--nodaemon", "start"]
        return Command("carbon", argv, self._directory.logs / "carbon.log", self._environment)

    def prepare_web(self) -> None:
        """Makes the web server's database.

        Raises:
            LabError: it fails.
        """
        migrate = [*_python(self._directory), "-m", "django", "migrate", "--run-syncdb"]
        _run("graphite-web's migration", migrate, self._environment, _PREPARE_SECONDS)

    def web(self) -> Command:
        """Returns the command of the web server."""
        serve = ["-m", "django", "runserver", "--noreload", "--insecure", f"127.0.0.1:{self.web_port}"]
        argv = [*_python(self._directory), *serve]
        return Command("graphite", argv, self._directory.logs / "graphite.log", self._environment)

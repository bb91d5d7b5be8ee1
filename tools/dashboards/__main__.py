"""Writes the templates that the package carries, and `deploy/grafana`, which is what comes of them by default."""

from pathlib import Path

from dashboards.catalogue import templates
from fleetmem.dashboards import DashboardSet, GrafanaSource

_ROOT = Path(__file__).parents[2]


def _write(folder: Path, texts: dict[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")


def main() -> None:
    """Writes all files anew."""
    for source in GrafanaSource:
        _write(_ROOT / "src" / "fleetmem" / "dashboards" / source, templates(source))
        _write(_ROOT / "deploy" / "grafana" / source, DashboardSet(source).texts())


if __name__ == "__main__":
    main()

"""The report of a run: one self-contained HTML file, and its main figure as a picture."""

from pathlib import Path


def build(run_directory: Path | str) -> Path:
    """Write ``report.html`` into ``run_directory`` and return its path (see :mod:`trivium.report.page`)."""
    from trivium.report import page  # matplotlib and jinja2 are loaded only when a report is made

    return page.build(run_directory)


def main_figure(run_directory: Path | str, path: Path | str) -> Path:
    """Write accuracy by stage, with intervals, teacher and baselines, to ``path`` (.svg or .png)."""
    from trivium.report import page

    return page.main_figure(run_directory, path)

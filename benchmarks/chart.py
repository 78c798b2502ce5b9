"""Draws the chart of the benchmark's results."""

from pathlib import Path

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams["svg.hashsalt"] = "benchmark"  # the same figures give the same file

from matplotlib import pyplot  # noqa: E402 - after the choice of SVG

SERVICES = {
    "ordinary": ("#b0b0b0", "ordinary Django REST framework"),
    "rival": ("#e0a458", "FastAPI, SQLAlchemy and asyncpg"),
    "service": ("#1a6faf", "this service"),
    "floor": ("#7fb77e", "bare WSGI and SQL"),
}
BAR = 0.2


def draw(figures: dict[str, dict[str, float]], file: Path) -> None:
    """Draw milliseconds of CPU per request, by workload and service, as horizontal bars."""
    plot, axes = pyplot.subplots(figsize=(9, 0.9 * len(figures) + 1))
    for place, (service, (colour, label)) in enumerate(SERVICES.items()):
        rows = [row + (place - 1.5) * BAR for row in range(len(figures))]
        bars = axes.barh(rows, [by_service[service] for by_service in figures.values()], BAR, color=colour, label=label)
        axes.bar_label(bars, fmt="%.2g", padding=3, fontsize=7)
    axes.set_yticks(range(len(figures)), figures)
    axes.invert_yaxis()
    axes.set_xlabel("milliseconds of CPU per request, of application processes and PostgreSQL together")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower right", frameon=False)
    plot.tight_layout()
    plot.savefig(file, metadata={"Date": None})

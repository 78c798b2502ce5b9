"""The picture of the benchmark's result."""

from pathlib import Path

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams["svg.hashsalt"] = "benchmark"  # the same figures give the same file

from matplotlib import pyplot  # noqa: E402 - after the choice of how to draw

COLOURS = {"ordinary": "#b0b0b0", "service": "#1a6faf", "floor": "#7fb77e"}
NAMES = {"ordinary": "ordinary Django REST framework", "service": "this service", "floor": "bare WSGI and SQL"}
BAR = 0.27


def draw(figures: dict[str, dict[str, float]], file: Path) -> None:
    """CPU a request in milliseconds, by workload and service, as horizontal bars on a logarithmic scale."""
    plot, axes = pyplot.subplots(figsize=(9, 0.62 * len(figures) + 1))
    for row, by_service in enumerate(figures.values()):
        for place, (service, milliseconds) in enumerate(by_service.items()):
            if service not in NAMES:
                continue
            label = NAMES[service] if row == 0 else None
            y = row + (place - 1) * BAR
            axes.barh(y, milliseconds, BAR, color=COLOURS[service], label=label)
            written = f"{milliseconds:,.0f}" if milliseconds >= 100 else f"{milliseconds:.3g}"
            axes.text(milliseconds * 1.05, y, written, va="center", fontsize=7)
    axes.set_xscale("log")
    axes.set_yticks(range(len(figures)), figures)
    axes.invert_yaxis()
    axes.set_xlabel("milliseconds of CPU a request, of workers and database together (logarithmic)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower right", frameon=False)
    plot.tight_layout()
    plot.savefig(file, metadata={"Date": None})

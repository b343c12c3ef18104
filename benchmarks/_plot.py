"""A bar chart as SVG text. A plotting library would be larger than what is plotted."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

_LABEL, _BAR, _ROW = 230, 420, 26  # pixels


def bars(title: str, values: Sequence[tuple[str, float]]) -> str:
    """Horizontal bars, ours in another colour."""
    longest = max(value for _, value in values)
    height = 44 + _ROW * len(values)
    size = f'width="{_LABEL + _BAR + 80}" height="{height}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="13">',
        '<rect width="100%" height="100%" fill="#ffffff"/>',
        f'<text x="12" y="24" font-weight="bold">{escape(title)}</text>',
    ]
    for row, (name, value) in enumerate(values):
        y = 40 + row * _ROW
        colour = "#2f6fdf" if name.startswith("eventbus") else "#9aa4b2" if not name.startswith("bare") else "#d8dde4"
        width = max(1, _BAR * value / longest)
        parts.append(f'<text x="{_LABEL - 8}" y="{y + 15}" text-anchor="end">{escape(name)}</text>')
        parts.append(f'<rect x="{_LABEL}" y="{y + 2}" width="{width:.0f}" height="{_ROW - 8}" fill="{colour}"/>')
        parts.append(f'<text x="{_LABEL + width + 6:.0f}" y="{y + 15}">{value:.2f}</text>')
    return "\n".join([*parts, "</svg>", ""])

"""Draws the figures of scripts/scale as SVG, or, without a folder, only checks that they can be drawn."""

import math
import sys
from collections import defaultdict
from pathlib import Path
from xml.sax.saxutils import escape

# Name: what is drawn, what x is, what y is, whether x is drawn as a logarithm.
FIGURES = {
    "surrounded": ("Hostile nodes around one key", "hostile nodes, each in a network of its own", "services found", True),
    "stale": ("Old records that hold", "hostile nodes, % of all", "newest record found", False),
    "withheld": ("Records kept back", "hostile nodes, % of all", "of look-ups", False),
    "shelf": ("A shelf that is flooded", "hostile records, times those that it holds", "honest records kept", False),
    "sample": ("35 of 36 nodes that are met are hostile", "hours", "hostile share of the sample", False),
}
COLORS = ["#c0392b", "#2471a3", "#1e8449", "#7d3c98", "#b9770e", "#34495e"]
WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 640, 400, 62, 36, 18, 46


def read(path):
    figures = defaultdict(lambda: defaultdict(list))
    for number, line in enumerate(Path(path).read_text().splitlines(), 1):
        name, rest = line.split(",", 1)
        label, x, y = rest.rsplit(",", 2)
        if name not in FIGURES or not 0 <= float(y) <= 1:
            sys.exit(f"{path}:{number}: no point of a figure: {line}")
        figures[name][label].append((float(x), float(y)))
    missing = [name for name in FIGURES if name not in figures]
    if missing:
        sys.exit(f"{path}: nothing was played of {', '.join(missing)}")
    return figures


def ticks(values, logarithmic):
    most = max(values)
    if logarithmic:
        return [0] + [10**power for power in range(1, int(math.log10(max(most, 10))) + 1)]
    if most <= 12:
        return sorted(set(values))
    step = next(step for step in (5, 10, 20, 24, 48, 60, 100, 500) if most / step <= 10)
    return list(range(0, int(most) + 1, step))


def draw(name, lines):
    title, across, up, logarithmic = FIGURES[name]
    values = [x for points in lines.values() for x, _ in points]
    scale = (lambda x: math.log10(x + 5) - math.log10(5)) if logarithmic else (lambda x: x)
    most = scale(max(values)) or 1
    bottom = HEIGHT - BOTTOM - 20 * len(lines)
    at_x = lambda x: LEFT + (WIDTH - LEFT - RIGHT) * scale(x) / most
    at_y = lambda y: bottom - (bottom - TOP) * y
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="22" font-size="15">{escape(title)}</text>',
    ]
    for y in (0, 0.25, 0.5, 0.75, 1):
        out.append(f'<path d="M{LEFT} {at_y(y):.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>')
        out.append(f'<text x="{LEFT - 6}" y="{at_y(y) + 4:.1f}" text-anchor="end">{y:.0%}</text>')
    for x in ticks(values, logarithmic):
        out.append(f'<text x="{at_x(x):.1f}" y="{bottom + 16}" text-anchor="middle">{x:g}</text>')
    out.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{bottom + 32}" text-anchor="middle">{escape(across)}</text>')
    middle = (TOP + bottom) / 2
    out.append(f'<text transform="translate(16 {middle}) rotate(-90)" text-anchor="middle">{escape(up)}</text>')
    for number, (label, points) in enumerate(lines.items()):
        color, dash = COLORS[number % len(COLORS)], ["none", "6 3", "2 3"][number % 3]
        drawn = " ".join(f"{at_x(x):.1f},{at_y(y):.1f}" for x, y in points)
        out.append(f'<polyline points="{drawn}" fill="none" stroke="{color}" stroke-width="2" stroke-dasharray="{dash}"/>')
        if len(points) < 20:
            out += [f'<circle cx="{at_x(x):.1f}" cy="{at_y(y):.1f}" r="3" fill="{color}"/>' for x, y in points]
        y = bottom + 50 + 20 * number
        out.append(f'<path d="M{LEFT} {y - 4}h34" stroke="{color}" stroke-width="2" stroke-dasharray="{dash}"/>')
        out.append(f'<text x="{LEFT + 42}" y="{y}">{escape(label)}</text>')
    return "\n".join([*out, "</svg>", ""])


def main():
    figures = read(sys.argv[1])
    for name, lines in figures.items():
        drawn = draw(name, lines)
        if len(sys.argv) > 2:
            Path(sys.argv[2], f"scale-{name}.svg").write_text(drawn)


main()

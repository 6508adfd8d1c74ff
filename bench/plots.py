"""SVG bars from results. Knows nothing about what they mean."""

from html import escape

LEFT, WIDTH, RIGHT, ROW = 330, 470, 150, 22
OURS, THEIRS, SHORT = "#4477aa", "#b0b0b0", "#cc6644"


def page(title, height, body):
    return (
        "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LEFT + WIDTH + RIGHT} {height}" '
                'font-family="sans-serif" font-size="13">',
                f'<rect width="100%" height="100%" fill="#fff"/><text x="16" y="26" font-size="16">{escape(title)}</text>',
                *body,
                "</svg>",
            ]
        )
        + "\n"
    )


def bar(y, label, length, colour, words):
    return [
        f'<text x="{LEFT - 8}" y="{y + 14}" text-anchor="end">{escape(label)}</text>',
        f'<rect x="{LEFT}" y="{y + 2}" width="{max(length, 1):.1f}" height="{ROW - 6}" fill="{colour}"/>',
        f'<text x="{LEFT + max(length, 1) + 6:.1f}" y="{y + 14}">{escape(words)}</text>',
    ]


def goals(title, rows):
    """`rows` are (label, how far beyond its limit as a ratio, words): 1 is just reached."""
    largest = max([1.6] + [min(ratio, 4) for _, ratio, _ in rows])
    y, body = 48, []
    for label, ratio, words in rows:
        length = min(ratio, largest) / largest * WIDTH
        body += bar(y, label.replace("`", ""), length, OURS if ratio >= 1 else SHORT, words)
        y += ROW + 2
    x = LEFT + WIDTH / largest
    body.append(f'<line x1="{x:.1f}" y1="42" x2="{x:.1f}" y2="{y}" stroke="#000" stroke-dasharray="4 3"/>')
    body.append(f'<text x="{x:.1f}" y="{y + 18}" text-anchor="middle" fill="#555">the limit; longer is better</text>')
    return page(title, y + 32, body)


def peers(title, groups):
    """`groups` is [(label, [(peer, value, words)])]: bars to one scale within a group."""
    y, body = 44, []
    for label, bars in groups:
        largest = max(value for _, value, _ in bars) or 1
        body.append(f'<text x="16" y="{y + 14}" font-weight="bold">{escape(label)}</text>')
        y += ROW
        for peer, value, words in bars:
            ours = peer.startswith(("cloakroom", "coherence"))
            body += bar(y, peer, value / largest * WIDTH, OURS if ours else THEIRS, words)
            y += ROW
        y += 8
    return page(title, y + 8, body)


def lines(title, series):
    """`series` is {name: [(x, y)]}; y begins at 0."""
    colours = [OURS, SHORT, "#669944", "#886699"]
    left, top, width, height = 70, 44, 760, 300
    most_x = max(x for points in series.values() for x, _ in points) or 1
    most_y = max(y for points in series.values() for _, y in points) * 1.05 or 1
    body = []
    for step in range(5):
        value = most_y * step / 4
        y = top + height - height * step / 4
        body.append(f'<line x1="{left}" y1="{y:.1f}" x2="{left + width}" y2="{y:.1f}" stroke="#ddd"/>')
        body.append(f'<text x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{value:.0f}</text>')
        x = left + width * step / 4
        body.append(f'<text x="{x:.1f}" y="{top + height + 20}" text-anchor="middle">{most_x * step / 4:.0f}</text>')
    for number, (name, points) in enumerate(series.items()):
        colour = colours[number % len(colours)]
        path = " ".join(f"{left + x / most_x * width:.1f},{top + height - y / most_y * height:.1f}" for x, y in points)
        body.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        body.append(f'<text x="{left + width + 8}" y="{top + 14 + number * 20}" fill="{colour}">{escape(name)}</text>')
    return page(title, top + height + 36, body)

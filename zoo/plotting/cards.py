from matplotlib.figure import Figure

from zoo.plotting.episodes import Episodes, covered_pixels
from zoo.plotting.key import draw_key
from zoo.plotting.layout import Layout, layout_for
from zoo.plotting.panels import draw_beliefs, draw_number_line, draw_path, draw_revealed, draw_tiles
from zoo.plotting.style import HEADING, MUTED, RIGHT, TEXT, WRONG, Sheet, house_style, percent

TITLES, KEY = 0.24, 0.26  # inches, at the head and at the foot of the page


def draw_episodes(e: Episodes, shown: int) -> Figure:
    """Draw a card for each picture, up to and including glimpse number ``shown``.

    The size of the figure and the place of everything on it are the same for each ``shown``.
    """
    layout = layout_for(e)
    _, last_top = layout.corner(len(e.images) - 1)
    with house_style():
        sheet = Sheet(TITLES + last_top + layout.card[1] + KEY)
        draw_titles(sheet, layout, e)
        for i in range(len(e.images)):
            draw_card(sheet, layout, e, i, shown)
        draw_key(sheet.figure, e.sides)
    return sheet.figure


def draw_titles(sheet: Sheet, layout: Layout, e: Episodes) -> None:
    """Write above each column of cards what its panels show."""
    titles = {
        "path": "where it looked",
        "seen": "what it has seen" if len(e.sides) == 1 else "seen in full detail",
        "tiles": "what each glimpse passed on",
        "beliefs": "what it believed",
    }
    for column in range(min(layout.columns, len(e.images))):
        left, _ = layout.corner(column)
        for panel, title in titles.items():
            if panel in layout.panels:
                sheet.text(title, left=left + layout.panels[panel][0], top=0.16, fontsize=TEXT, color=MUTED)


def draw_card(sheet: Sheet, layout: Layout, e: Episodes, i: int, shown: int) -> None:
    """Draw for picture ``i`` where the model looked, what it has seen and what it believed."""
    left, top = layout.corner(i)
    axes = {
        name: sheet.axes(name, left=left + x, top=TITLES + top + y, width=width, height=height)
        for name, (x, y, width, height) in layout.panels.items()
    }
    text, colour = verdict(e, i, shown)
    look = {"fontsize": HEADING, "fontweight": "bold", "color": colour}
    sheet.text(text, left=left + layout.panels["path"][0], top=TITLES + top + 0.13, **look)

    image, centres = e.images[i], e.centres[i, :shown]
    draw_path(axes["path"], image, centres, e.sides, e.steps)
    draw_revealed(axes["seen"], image, covered_pixels(image.shape[:2], centres, e.finest))
    draw_beliefs(axes["beliefs"], e.probabilities[i, :shown], e.steps, int(e.labels[i]), e.classes)
    draw_number_line(axes["beliefs numbers"], shown, e.steps)
    if e.tiles is not None:
        draw_tiles(axes["tiles"], e.tiles[i, :shown], e.steps)
        draw_number_line(axes["tiles numbers"], shown, e.steps)


def verdict(e: Episodes, i: int, shown: int) -> tuple[str, str]:
    """Say in words and in a colour which class is most probable, and at the end if it is right."""
    probabilities = e.probabilities[i, shown - 1]
    best = int(probabilities.argmax())
    guess, truth = f"{e.classes[best]} ({percent(probabilities[best])})", e.classes[e.labels[i]]
    if shown < e.steps:
        return f"{guess} …", MUTED
    return (f"✓ {guess}", RIGHT) if best == e.labels[i] else (f"✗ {guess}, but it is {truth}", WRONG)

"""Other names that people use for places, shapes, colours, directions, numbers, and for common words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

PLACES: Mapping[str, Sequence[str]] = {
    "northwest": (
        "upper left",
        "top left",
        "top left corner",
        "upper left corner",
        "north west",
        "NW",
        "top-left",
    ),
    "north": ("top", "top middle", "top center", "upper middle", "top centre", "N", "top row middle"),
    "northeast": ("upper right", "top right", "top right corner", "upper right corner", "north east", "NE"),
    "west": ("middle left", "left middle", "center left", "left", "W", "left side", "mid left"),
    "center": ("middle", "centre", "exact middle", "center cell", "dead center", "very middle"),
    "east": ("middle right", "right middle", "center right", "right", "E", "right side", "mid right"),
    "southwest": ("lower left", "bottom left", "bottom left corner", "lower left corner", "south west", "SW"),
    "south": ("bottom", "bottom middle", "bottom center", "lower middle", "bottom centre", "S"),
    "southeast": (
        "lower right",
        "bottom right",
        "bottom right corner",
        "lower right corner",
        "south east",
        "SE",
    ),
}
"""Other names of the places."""
NAMES: Mapping[str, Sequence[str]] = {
    "circle": ("disc", "disk", "dot", "round one", "ball"),
    "ring": ("donut", "hoop", "doughnut", "ring shape"),
    "cross": ("plus", "plus sign", "x", "cross shape"),
    "square": ("box", "block", "square one"),
    "triangle": ("triangular one", "pyramid", "triangle shape"),
    "purple": ("violet",),
    "orange": ("orange-coloured",),
}
"""Other names of shapes and colours."""
DIRECTION_NAMES: Mapping[str, Sequence[str]] = {
    "above": ("just above", "directly above", "over", "right above", "on top of", "one up from", "north of"),
    "below": ("just below", "directly below", "under", "right under", "beneath", "underneath", "south of"),
    "left of": ("to the left of", "directly left of", "just left of", "on the left of", "left next to"),
    "right of": ("to the right of", "directly right of", "just right of", "on the right of", "right next to"),
}
"""Other names of directions."""
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
"""The numbers in words."""
STRANGE_SHAPES = (
    *("star", "hexagon", "pentagon", "octagon", "diamond", "heart", "crescent", "moon", "arrow", "spiral"),
    *("rhombus", "trapezoid", "cone", "cylinder", "pyramid", "zigzag", "logo", "robot"),
    *("man", "woman", "child", "person", "boy", "girl", "cat", "dog", "horse", "bird", "fish", "car", "bus"),
    *("tree", "flower", "house", "apple", "banana", "cup", "chair", "king", "queen", "pawn"),
    *("knight", "snake", "dragon", "clock", "flag", "key", "cloud", "sun", "boat", "plane", "hand", "face"),
)
"""Things that no board shows."""
STRANGE_SIDES = (
    *("top", "bottom", "front", "back", "upper side", "lower side", "far edge", "near edge", "ceiling"),
    *("floor", "viewer", "diagonal", "top left", "bottom right", "north", "south", "sky", "ground"),
)
"""Sides that no board is tipped to."""

SYNONYMS = (
    (
        *(
            "blinks",
            "flashes",
            "lights up",
            "glows",
            "flickers",
            "shines",
            "goes bright",
            "is lit",
            "is flashing",
        ),
        *("pulses", "twinkles", "winks", "sparkles", "beams", "gets bright", "is illuminated", "comes on"),
        *("turns on", "gets lit", "goes off", "blinks once", "brightens"),
    ),
    (
        *("blink", "flash", "light up", "glow", "flicker", "shine", "go bright", "pulse", "twinkle", "wink"),
        *("sparkle", "beam", "get bright", "come on", "turn on", "get lit", "go off", "brighten"),
    ),
    (
        *("blinked", "flashed", "lit up", "glowed", "flickered", "shone", "pulsed", "twinkled", "winked"),
        *("sparkled", "got bright", "came on", "turned on", "got lit", "went off", "brightened"),
    ),
    (
        *("blinking", "flashing", "glowing", "lighting up", "flickering", "shining", "pulsing", "twinkling"),
        *("winking", "coming on", "brightening"),
    ),
    (
        *("moves", "hops", "jumps", "shifts", "changes place", "changes position", "relocates"),
        *("goes somewhere else", "switches cells", "slides over", "travels", "wanders", "budges", "skips"),
        *("leaves its place", "changes cells", "goes elsewhere"),
    ),
    (
        *("move", "hop", "jump", "shift", "change place", "change its place", "change position", "relocate"),
        *(
            "switch cells",
            "slide over",
            "travel",
            "wander",
            "budge",
            "skip",
            "leave its place",
            "go elsewhere",
        ),
    ),
    (
        *(
            "moved",
            "hopped",
            "jumped",
            "shifted",
            "changed place",
            "relocated",
            "switched cells",
            "slid over",
        ),
        *("travelled", "wandered", "budged", "skipped", "left its place", "went elsewhere"),
    ),
    (
        *("moving", "hopping", "jumping", "shifting", "changing place", "switching cells", "sliding over"),
        *("travelling", "wandering", "skipping", "going elsewhere"),
    ),
    (
        "piece",
        "shape",
        "thing",
        "object",
        "token",
        "figure",
        "item",
        "symbol",
        "one",
        "tile",
        "marker",
        "guy",
    ),
    (
        "pieces",
        "shapes",
        "things",
        "objects",
        "tokens",
        "figures",
        "items",
        "symbols",
        "tiles",
        "markers",
        "guys",
    ),
    ("place", "spot", "cell", "position", "location", "field", "slot"),
    ("colour", "color", "hue", "shade", "tint"),
    ("tipped", "tilted", "leaned", "slanted", "inclined", "tilting", "sloped", "tipped over"),
    ("tip", "tilt", "lean", "slant", "incline", "slope", "tip over"),
    ("removed", "taken away", "taken out", "deleted", "lifted off", "gone"),
    ("remove", "take away", "take out", "delete", "lift off"),
    ("clip", "video", "footage", "recording", "film"),
    ("at the start", "at the beginning", "in the first frame", "at first", "initially", "to begin with"),
    ("at the end", "in the end", "in the last frame", "finally", "when it is over", "at the finish"),
    ("ends up", "lands", "finishes", "comes to rest", "winds up"),
    ("end up", "land", "finish", "come to rest", "wind up"),
    ("tell me", "say", "let me know", "show me", "name"),
)
"""Words that people use for each other."""

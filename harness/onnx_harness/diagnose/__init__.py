"""A failing cell by itself, to run anywhere and to hand on."""

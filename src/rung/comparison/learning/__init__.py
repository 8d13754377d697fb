"""How networks learned: what their runs recorded, drawn on one page."""

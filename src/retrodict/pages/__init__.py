"""Pages: every HTML page of the platform, from templates of one family.

A page is one file that can be mailed, archived and printed: no script, nothing loaded from elsewhere, light and dark.
Rooms pass plain values and blocks; the templates lay them out and escape every value. Jinja is imported when the first
page is made.
"""

from retrodict.pages.blocks import Details, Figure, Note, Row, Section, plot, themed, themed_plot
from retrodict.pages.page import amount, document, percent, render

__all__ = [
    "Details",
    "Figure",
    "Note",
    "Row",
    "Section",
    "amount",
    "document",
    "percent",
    "plot",
    "render",
    "themed",
    "themed_plot",
]

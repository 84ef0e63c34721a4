"""Figures: functions from numbers and images to a matplotlib `Figure`, and `save`.

No function uses pyplot or any other global state.

Example:
  >>> figure = curves([0.0, 0.5], {"standard": [0.95, 0.1], "robust": [0.9, 0.7]}, xlabel="eps")
  >>> [line.get_label() for line in figure.axes[0].get_lines()]
  ['standard', 'robust']
"""

from advfeat.figures.charts import bars, matrix
from advfeat.figures.lines import curves, frontier
from advfeat.figures.maps import DISPLAYS, heat, magnitude, map_grid, signed, three_sigma
from advfeat.figures.pictures import Example, example_strip, image_grid, magnification
from advfeat.figures.style import marked, save

__all__ = [
    "DISPLAYS",
    "Example",
    "bars",
    "curves",
    "example_strip",
    "frontier",
    "heat",
    "image_grid",
    "magnification",
    "magnitude",
    "map_grid",
    "marked",
    "matrix",
    "save",
    "signed",
    "three_sigma",
]

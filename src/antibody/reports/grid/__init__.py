"""Reports on a comparison: they read its results.json, and nothing else."""

from antibody.reports.grid.reading import is_grid
from antibody.reports.grid.writing import grid_figures, print_grid, write_grid

__all__ = ["grid_figures", "is_grid", "print_grid", "write_grid"]

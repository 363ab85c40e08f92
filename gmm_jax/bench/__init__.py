"""MANY TRIALS: every method on every problem, rows and provenance on disk, figures, tables and one report."""

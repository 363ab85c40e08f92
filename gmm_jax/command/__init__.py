"""One's own data in the shell: fit, predict, sample, plot and choose; tables, files and sentences."""

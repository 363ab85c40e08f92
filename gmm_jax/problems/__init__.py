"""WHERE TRUTH AND DATA COME FROM: random truths, named problems with a known truth, real data sets, and files."""

from . import datasets
from .blocks import FileBlocks, open_blocks, open_dask
from .checks import dependent_features, doubtful_features
from .controlled import mixture_with_overlap
from .generators import fixed_counts, random_covariance, random_gaussian, random_mixture, separated_mixture
from .overlap import Overlap, overlap
from .suite import Problem, load, names
from .text_layout import TextFormat

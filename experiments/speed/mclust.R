# what mclust.py runs: seconds of an iteration of em(), from the difference of two numbers of iterations
arguments <- commandArgs(trailingOnly = TRUE)
if (!requireNamespace("mclust", quietly = TRUE)) quit(status = 64)
if (length(arguments) == 0) quit()
suppressPackageStartupMessages(library(mclust))
sizes <- as.integer(arguments[2:7]); n <- sizes[1]; d <- sizes[2]; k <- sizes[3]; n_calls <- sizes[4]
read <- function(name, count) readBin(file.path(arguments[1], name), "double", count)
x <- matrix(read("x", n * d), n, d, byrow = TRUE)
variance <- mclustVariance("VVV", d = d, G = k)
variance$cholsigma <- array(apply(array(read("covariances", d * d * k), c(d, d, k)), 3, chol), c(d, d, k))
start <- list(pro = read("weights", k), mean = matrix(read("means", d * k), d, k), variance = variance)
seconds <- function(n) system.time(for (i in seq_len(n_calls)) em(
  data = x, modelName = "VVV", parameters = start, control = emControl(itmax = c(n, n), tol = c(0, 0))))[["elapsed"]]
cat(sprintf("%.9g\n", (seconds(sizes[6]) - seconds(sizes[5])) / (sizes[6] - sizes[5])))

# what mclust.py runs: reads a table without head, prints parameters, log-likelihood, passes and version
# Mclust keeps no count of its passes over the data, and its log-likelihood is that before the last M-step
arguments <- commandArgs(trailingOnly = TRUE)
if (!requireNamespace("mclust", quietly = TRUE)) quit(status = 64)
suppressPackageStartupMessages(library(mclust))
passes <- 0
count <- quote(passes <<- passes + attr(returnValue(), "info")[[1]])
invisible(suppressMessages(trace("me", exit = count, where = asNamespace("mclust"), print = FALSE)))
set.seed(as.integer(arguments[4]))
x <- as.matrix(read.csv(arguments[1], header = FALSE))
found <- Mclust(x, G = as.integer(arguments[2]), modelNames = arguments[3], verbose = FALSE,
                control = emControl(tol = as.numeric(arguments[5])))
if (is.null(found)) quit(status = 65)
variance <- found$parameters$variance
say <- function(values) cat(sprintf("%.17g", as.vector(values)), "\n")
say(found$parameters$pro)
say(found$parameters$mean)
say(if (ncol(x) == 1) rep_len(variance$sigmasq, found$G) else variance$sigma)
say(sum(dens(x, modelName = found$modelName, parameters = found$parameters, logarithm = TRUE)))
say(max(passes, 1))
cat(as.character(packageVersion("mclust")), "\n")

# what jags.py runs: reads arrays from a folder, writes draws into it, prints seconds of compiling and of sampling
arguments <- commandArgs(trailingOnly = TRUE)
if (!requireNamespace("rjags", quietly = TRUE)) quit(status = 64)
suppressPackageStartupMessages(library(rjags))
folder <- arguments[1]
sizes <- as.integer(arguments[2:7])
N <- sizes[1]; D <- sizes[2]; K <- sizes[3]; chains <- sizes[4]; warmup <- sizes[5]; draws <- sizes[6]
seed <- as.integer(arguments[8])
read <- function(name, ...) array(readBin(file.path(folder, name), "double", prod(...)), c(...))
data <- list(N = N, D = D, K = K, z = read("z", N, D), alpha = as.vector(read("alpha", K)),
             loc = as.vector(read("loc", D)), precision = read("precision", D, D),
             size = read("size", D, D), dof = as.vector(read("dof", 1)))
weights <- read("weights", chains, K); means <- read("means", chains, K, D)
precisions <- read("precisions", chains, K, D, D); label <- read("label", chains, N)
first <- lapply(seq_len(chains), function(c) list(
  weights = weights[c, ], means = means[c, , ], precisions = precisions[c, , , ], label = label[c, ],
  .RNG.name = "base::Mersenne-Twister", .RNG.seed = seed + c))
compiling <- system.time(model <- jags.model(
  file.path(folder, "model"), data, first, n.chains = chains, n.adapt = 0, quiet = TRUE))
running <- system.time({
  update(model, warmup, progress.bar = "none")
  found <- jags.samples(model, c("weights", "means", "precisions"), draws, progress.bar = "none")
})
for (name in names(found)) writeBin(as.vector(found[[name]]), file.path(folder, paste0("drawn_", name)))
cat(sprintf("%.9g\n", c(compiling[["elapsed"]], running[["elapsed"]])))

"""Speed beside other programs: how times become ratios, the programs, and the parts of speed_em.py and speed_bayes.py.

`ratios` has pairs, intervals and the machine's floor; `programs` and `mclust` one iteration of every program;
`iterations`, `searches`, `time_to_99` and `processes` the parts of speed_em.py, `verdict` its answer; `samplers` the
programs of speed_bayes.py; `rows` EM by where its rows lie, for scale.py.
"""

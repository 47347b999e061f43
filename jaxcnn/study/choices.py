"""What a sweep may be told by name; the command and `jaxcnn.sweep` take the same."""

PLANNED = ("grid", "random")  # samplers whose trials are all known beforehand
SAMPLERS = (*PLANNED, "tpe", "cmaes", "nsga2", "nsga3", "gp")
PRUNERS = ("none", "median", "hyperband")
ENGINES = ("inline", "processes", "slurm", "workers")

"""The names of samplers, pruners and engines that a sweep accepts, in the command and in `jaxcnn.sweep`."""

PLANNED = ("grid", "random")  # samplers whose trials are all known beforehand
SAMPLERS = (*PLANNED, "tpe", "cmaes", "nsga2", "nsga3", "gp")
PRUNERS = ("none", "median", "hyperband")
ENGINES = ("inline", "processes", "slurm", "workers")

"""One run: everything that deals with time, files and signals.

`jaxcnn.train(config, workdir)` calls this package through `jaxcnn.api.training.train`.
"""

import sys

import jaxcnn

sys.modules[__name__].__class__ = jaxcnn.CallablePackage

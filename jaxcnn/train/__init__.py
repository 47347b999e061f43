"""One run: everything that deals with time, files and signals.

`jaxcnn.train(config, workdir)` is a call of this package: `jaxcnn.api.training.train`.
"""

import sys

import jaxcnn

sys.modules[__name__].__class__ = jaxcnn.CallablePackage

"""Checks whether this machine is ready to train: `python -m jaxcnn.doctor`.

`jaxcnn.doctor()` calls this package through `jaxcnn.api.reports.doctor`.
"""

import sys

import jaxcnn

sys.modules[__name__].__class__ = jaxcnn.CallablePackage

"""`jaxcnn.main` in a process that cannot write files of more than 60 kB, like one on a full disk."""

import resource
import runpy

if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
    runpy.run_module("jaxcnn.main", run_name="__main__", alter_sys=True)

"""The functions behind `import jaxcnn`: configs, training, finished runs and their networks, for scripts and notebooks.

They end no process and handle no signals, and may be called from any thread.
"""

"""The only rooms that import ray: applications from a config, replicas, dispatch between them, and the local cluster."""

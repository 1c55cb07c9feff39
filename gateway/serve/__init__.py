"""The only rooms that import ray: from a config to applications, replicas, dispatch, a local cluster."""

"""Units to Dask: dispatch, backlog plugin, worker cache. Never a scheduler or transport of our own."""

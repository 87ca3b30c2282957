"""daskml-scale: features, search and prediction as Dask task graphs over chunked Zarr."""

__version__ = "0.1.0"

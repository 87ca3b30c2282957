"""Where data rests: small files, Zarr datasets, tables, ledgers. Nothing here knows about Dask or stages."""

"""Us beside a peer on the same work: ``python -m benchmarks`` (or ``make bench``). One module per question."""

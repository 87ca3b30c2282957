"""What was asked: workflow, cluster and step models, expressions, loading, finding. Pure but for reading files."""

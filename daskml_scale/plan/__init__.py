"""Pure arithmetic of a stage: units, snapshots of inputs, projected memory, batches, order of stages."""

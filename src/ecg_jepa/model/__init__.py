"""Everything that is saved with a checkpoint, so that it loads without this package: siblings only, nothing of other folders."""

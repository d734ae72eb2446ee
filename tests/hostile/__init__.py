"""Files that once broke a reader, each small, or built by a few lines where it is not."""

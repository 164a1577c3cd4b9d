"""Public file formats that readers and evaluators share. Modules `*_annotations` know labels: pair readers may not."""

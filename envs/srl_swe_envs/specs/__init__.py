"""Image names of the published data sets, one file per family; ``image_names.py`` reads them."""

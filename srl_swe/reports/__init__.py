"""HTML pages and their charts, and training runs read back from their folders.

The pages are Jinja2 templates (``templates/``) for records of the layers above. Nothing here
needs torch.
"""

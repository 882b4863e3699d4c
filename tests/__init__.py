"""All tests. A package, as swesmith installs one of the same name, which would hide a folder."""

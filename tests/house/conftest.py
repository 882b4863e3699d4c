collect_ignore = ["stored_0_1"]

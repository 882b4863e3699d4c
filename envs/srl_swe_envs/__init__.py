"""Sandboxes for srl_swe: containers, and a stand-in without any; no boundary, that one."""

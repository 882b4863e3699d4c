"""What a run leaves in its folder: metrics, pages, completions, the policy; and how it goes on."""

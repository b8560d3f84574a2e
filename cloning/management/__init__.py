"""The management command of cloning: `clone` makes a voice clone from a recording."""

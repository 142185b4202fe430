"""Report a run: the summary that the page shows, with its experts and its calibration texts."""

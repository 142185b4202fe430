"""Workers: other processes, on this machine or others, that have the run's model too and do parts of its work."""

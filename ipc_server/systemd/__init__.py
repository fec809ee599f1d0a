"""What the supervisor says to systemd, and what systemd keeps for it: sd_notify(3), sd_listen_fds(3)."""

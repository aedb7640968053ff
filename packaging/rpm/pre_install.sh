getent group netft >/dev/null || groupadd --system netft

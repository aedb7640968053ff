if [ "$1" -eq 0 ]; then
    if [ -d /run/systemd/system ]; then systemctl disable --now netftd.service || true; fi
    # A daemon that was killed leaves its adapter.
    /usr/bin/netftd --cleanup --config /etc/netft/netft.toml || true
fi
exit 0

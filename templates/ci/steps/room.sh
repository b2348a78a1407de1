df --human-readable /
sudo rm -rf @{ unneeded }@
docker system prune --all --force >/dev/null
df --human-readable /

# Run in the build root: /recipe is bundler/busybox, /build an empty directory, /out takes what goes into the image.
cd /build
dpkg-source --no-check --extract /usr/src/busybox_*.dsc source >/dev/null
mkdir objects
cd source
# Its kconfig knows no list on top of `allnoconfig`: say "no" to every symbol there is, then what we want.
make -s O=/build/objects allnoconfig >/dev/null
cd ../objects
find . ../source -name Config.in -exec sed -nE 's/^[[:space:]]*config ([A-Z0-9_]+)$/# CONFIG_\1 is not set/p' {} + | sort -u >.config
for symbol in $(sed -nE 's/^(CONFIG_[A-Z0-9_]+)=.*/\1/p' /recipe/busybox.config); do
  sed -i "/^# $symbol is not set$/d" .config
done
cat /recipe/busybox.config >>.config
yes '' | make oldconfig >/dev/null
lost=$(grep -E '^CONFIG_' /recipe/busybox.config | grep -vxFf .config || true)
[ -z "$lost" ] || { echo "busybox's configuration did not take: $lost"; exit 1; }
make -j "$JOBS" busybox busybox.links
install -D -m 755 busybox /out/bin/busybox
# Only /bin in the image: PATH is one directory.
while IFS= read -r applet; do
  ln -sf busybox "/out/bin/$(basename "$applet")"
done < busybox.links

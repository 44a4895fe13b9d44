# Run in the build root: /recipe is bundler/qemu, /build an empty directory, /out takes what goes into the image.
cd /build
dpkg-source --no-check --extract /usr/src/qemu_*.dsc source >/dev/null
cp /recipe/stubdom.mak source/configs/devices/i386-softmmu/
mkdir objects pkgconfig
cd objects

# Except for two: Xen builds the archive of libxenstore without its reading thread, and then a watch event that
# comes before a reply ends the connection (QEMU: "failed to watch node: Invalid argument"). libxentoolcore goes
# with it, so that the process has one list of Xen handles.
for library in xenstore xentoolcore; do
  sed "s,^Libs: .*,Libs: $(realpath -s /usr/lib/*/lib$library.so)," /usr/lib/*/pkgconfig/$library.pc > ../pkgconfig/$library.pc
done
export PKG_CONFIG_PATH=/build/pkgconfig

# Libraries are linked from their archives where Debian has one, which leaves out what nobody calls and saves
# the dynamic linker's time: only pixman and libc stay shared. QEMU's `prefer_static` adds -static-pie; the
# later -pie takes that back.
#
# Unwind tables are for C++ and debuggers, and QEMU's threads end by returning; relative relocations, of which
# a position-independent QEMU has 80,000, take 20 KB packed instead of 1.9 MB.
lean="-ffunction-sections -fdata-sections -fno-unwind-tables -fno-asynchronous-unwind-tables"
../source/configure --prefix=/usr --target-list=i386-softmmu \
  --without-default-features --without-default-devices --with-devices-i386=stubdom \
  --enable-system --enable-xen --enable-xen-pci-passthrough --disable-tcg --disable-kvm \
  --enable-seccomp --enable-linux-io-uring --enable-linux-aio --enable-vnc --enable-pixman \
  --enable-malloc-trim --enable-stack-protector --enable-pie \
  --enable-trace-backends=nop --audio-drv-list= --disable-install-blobs --disable-debug-info --disable-werror \
  -Dprefer_static=true -Dfdt=disabled \
  --extra-cflags="$lean -D_FORTIFY_SOURCE=2 -include /recipe/declarations.h" \
  --extra-ldflags="-pie -Wl,-z,pack-relative-relocs -Wl,--gc-sections -Wl,-O1 -Wl,-z,relro,-z,now -Wl,--build-id=none"
ninja -j "$JOBS" qemu-system-i386

install -D -m 755 qemu-system-i386 /out/usr/bin/qemu-system-i386
strip --strip-all /out/usr/bin/qemu-system-i386

# The device models below insist on these files at start; keymaps are for VNC.
share=/out/usr/share/qemu
mkdir -p "$share/keymaps"
install -m 644 /usr/share/seabios/vgabios-stdvga.bin /usr/share/seabios/vgabios-cirrus.bin "$share"
install -m 644 /usr/share/qemu/efi-e1000.rom /usr/share/qemu/efi-rtl8139.rom "$share"
install -m 644 ../source/pc-bios/keymaps/en-us "$share/keymaps"

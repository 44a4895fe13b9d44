# Run in the build root: /recipe is bundler/flush, /build an empty directory, /out takes what goes into the image.
mkdir -p /out/lib
gcc -std=gnu17 -Wall -Wextra -Werror -O2 -fPIC -fvisibility=hidden -fstack-protector-strong -D_GNU_SOURCE -shared -s \
  -Wl,-z,relro,-z,now,-z,noseparate-code -Wl,--build-id=none -Wl,--hash-style=gnu -o /out/lib/stubdom-flush.so /recipe/flush.c
chmod 644 /out/lib/stubdom-flush.so

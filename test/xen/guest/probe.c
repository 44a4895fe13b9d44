/*
 * What the test guest measures with: one small static program without a C library, because the guest's firmware
 * reads every sector of it through an emulated controller. Each command prints one line of name=value pairs;
 * times are nanoseconds of the guest's own clock.
 *
 *   port PORT COUNT                              reads of one byte from an I/O port (hex), and how long each took;
 *                                              COUNT 0: until it is killed
 *   mmio ADDRESS COUNT                           reads of four bytes from physical memory (hex)
 *   cpu COUNT                                    a loop of COUNT dependent multiplications
 *   disk DEVICE read|write seq|random BLOCK COUNT flush|none
 *                                                direct I/O, one request at a time; flush after each write.
 *                                                What is random is in the first half of the disk, seq in the second
 *   tcp-send ADDRESS PORT BYTES                  until the other side has read all and closed
 *   tcp-receive ADDRESS PORT                     until the end of the stream
 *   udp-rate ADDRESS PORT COUNT SIZE             as fast as they leave; "?" asks how many came
 *   udp-echo ADDRESS PORT COUNT SIZE             one at a time; the distribution of the round trips
 *   serial-send PORT FILE                        all of it through a 16550 (PORT is its first, hex), a FIFO a time
 *   serial-take PORT FILE COUNT                  COUNT bytes from there into a new file
 *   frames IFINDEX FILE                          sent as they are: each two bytes of length, low one first, and the frame
 */
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long u64;
typedef long i64;

enum {
    SYS_read = 0, SYS_write = 1, SYS_open = 2, SYS_poll = 7, SYS_lseek = 8, SYS_mmap = 9, SYS_sched_yield = 24, SYS_iopl = 172,
    SYS_socket = 41, SYS_connect = 42, SYS_shutdown = 48, SYS_bind = 49, SYS_exit = 60, SYS_fdatasync = 75,
    SYS_clock_gettime = 228, SYS_pread = 17, SYS_pwrite = 18
};
enum { O_RDWR = 2, O_CREAT = 0x40, O_DIRECT = 0x4000, O_SYNC = 0x101000, PROT_RW = 3, MAP_SHARED = 1, MAP_ANON = 0x22 };
enum { AF_INET = 2, AF_PACKET = 17, SOCK_STREAM = 1, SOCK_DGRAM = 2, SOCK_RAW = 3, POLLIN = 1, most_samples = 100000, most_block = 1 << 20, ENOBUFS = 105 };

static i64 call6(i64 n, i64 a, i64 b, i64 c, i64 d, i64 e, i64 f)
{
    register i64 r10 __asm__("r10") = d;
    register i64 r8 __asm__("r8") = e;
    register i64 r9 __asm__("r9") = f;
    i64 result;
    __asm__ volatile("syscall" : "=a"(result) : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}
#define call(n, a, b, c) call6(n, (i64)(a), (i64)(b), (i64)(c), 0, 0, 0)

/* GCC asks for these of every program. */
void *memset(void *to, int value, u64 count)
{
    for (u8 *at = to; count--;)
        *at++ = value;
    return to;
}
void *memcpy(void *to, const void *from, u64 count)
{
    u8 *t = to;
    for (const u8 *f = from; count--;)
        *t++ = *f++;
    return to;
}

static char line[512];
static u32 used;

static void text(const char *s)
{
    while (*s && used < sizeof line - 1)
        line[used++] = *s++;
}

static void number(const char *name, u64 value)
{
    char digits[20];
    u32 n = 0;
    text(" ");
    text(name);
    text("=");
    do
        digits[n++] = '0' + value % 10;
    while (value /= 10);
    while (n && used < sizeof line - 1)
        line[used++] = digits[--n];
}

static void end(int status)
{
    line[used++] = '\n';
    call(SYS_write, 1, line, used);
    call(SYS_exit, status, 0, 0);
    __builtin_unreachable();
}

static void fail(const char *what, i64 error)
{
    text(" failed ");
    text(what);
    number("errno", error < 0 ? -error : 0);
    end(1);
}

static i64 check(const char *what, i64 result)
{
    if (result < 0)
        fail(what, result);
    return result;
}

static int same(const char *a, const char *b)
{
    while (*a && *a == *b)
        a++, b++;
    return *a == *b;
}

static u64 parse(const char *s, u32 base)
{
    u64 value = 0;
    if (base == 16 && s[0] == '0' && s[1] == 'x')
        s += 2;
    if (!*s)
        fail("an empty number", 0);
    for (; *s; s++) {
        u32 digit = *s >= 'a' ? *s - 'a' + 10 : *s - '0';
        if (digit >= base)
            fail(s, 0);
        value = value * base + digit;
    }
    return value;
}

/* CLOCK_MONOTONIC_RAW: the job `drift` has the other clocks go wrong. */
static u64 now(void)
{
    u64 time[2];
    call(SYS_clock_gettime, 4, time, 0);
    return time[0] * 1000000000 + time[1];
}

static u64 random_state = 88172645463325252;
static u64 next_random(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

static void *memory(u64 size)
{
    i64 at = call6(SYS_mmap, 0, size, PROT_RW, MAP_ANON, -1, 0);
    check("mmap", at < 0 && at > -4096 ? at : 0);
    return (void *)at;
}

static void sort(u32 *values, u32 count)
{
    for (u32 gap = count / 2; gap; gap /= 2)
        for (u32 i = gap; i < count; i++) {
            u32 value = values[i], j = i;
            for (; j >= gap && values[j - gap] > value; j -= gap)
                values[j] = values[j - gap];
            values[j] = value;
        }
}

static void distribution(u32 *samples, u32 count)
{
    u64 sum = 0, most = count - count / 10;
    sort(samples, count);
    for (u64 i = 0; i < most; i++)
        sum += samples[i];
    number("low90", sum / most);
    number("p50", samples[count / 2]);
    /* So many of a hundred took no longer: of a hundred the 90th and the 99th, not the longest. */
    number("p90", samples[((u64)count * 90 + 99) / 100 - 1]);
    number("p99", samples[((u64)count * 99 + 99) / 100 - 1]);
    number("max", samples[count - 1]);
}

static u8 in8(u16 at)
{
    u8 value;
    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(at));
    return value;
}

static void out8(u16 at, u8 value)
{
    __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(at));
}

/*
 * Many short steps, each timed by the processor's own counter: a clock may be a trap here. The median is what a step costs
 * when nothing else comes between, which the mean is not.
 */
static u32 *laps, lap_count;
static u64 began_at, first_tick, last_tick;

static u64 ticks(void)
{
    u32 low, high;
    __asm__ volatile("lfence; rdtsc" : "=a"(low), "=d"(high) : : "memory");
    return (u64)high << 32 | low;
}

static void laps_begin(u64 count)
{
    if (count == 0 || count > most_samples)
        fail("count", 0);
    laps = memory(count * sizeof *laps);
    began_at = now();
    first_tick = last_tick = ticks();
}

static inline void lap(void)
{
    u64 tick = ticks(), took = tick - last_tick;
    laps[lap_count++] = took > 0xffffffff ? 0xffffffff : took;
    last_tick = tick;
}

/* The mean's ns and count, of steps in each lap; the distribution of the laps in ns. */
static void laps_end(u64 steps)
{
    u64 ns = now() - began_at, all = last_tick - first_tick;
    number("ns", ns);
    number("count", lap_count * steps);
    for (u32 i = 0; all && i < lap_count; i++)
        laps[i] = laps[i] * ns / all;
    distribution(laps, lap_count);
}

static void port(char **args)
{
    u16 address = parse(args[0], 16);
    u64 count = parse(args[1], 10);
    check("iopl", call(SYS_iopl, 3, 0, 0));
    while (!count)
        in8(address);
    laps_begin(count);
    for (u64 i = 0; i < count; i++) {
        in8(address);
        lap();
    }
    laps_end(1);
}

static void mmio(char **args)
{
    u64 address = parse(args[0], 16), count = parse(args[1], 10);
    i64 fd = check("/dev/mem", call(SYS_open, "/dev/mem", O_RDWR | O_SYNC, 0));
    i64 page = call6(SYS_mmap, 0, 4096, PROT_RW, MAP_SHARED, fd, address & ~4095ul);
    check("mmap", page < 0 && page > -4096 ? page : 0);
    volatile u32 *at = (u32 *)(page + (address & 4095));
    laps_begin(count);
    for (u64 i = 0; i < count; i++) {
        (void)*at;
        lap();
    }
    laps_end(1);
}

/*
 * A 16550's registers. Linux' driver gives it a byte an access, each a trap; here one access moves a whole FIFO, and
 * one asks whether it may: rep outsb is one request to who emulates the port.
 */
enum { DATA = 0, IER = 1, IIR = 2, FCR = 2, LCR = 3, MCR = 4, LSR = 5, fifo = 16, trigger = 14, baud300 = 384 };

static u16 serial(const char *text_)
{
    u16 at = parse(text_, 16);
    check("iopl", call(SYS_iopl, 3, 0, 0));
    /*
     * As slow as no trap is. An emulated UART waits for no bit to pass, but by its speed it tells that nothing came for four
     * characters, and tells that rather than that there are 14: at 115200 each question would be too late, and one byte its answer.
     */
    out8(at + LCR, 0x83);
    out8(at + DATA, baud300 & 0xff);
    out8(at + IER, baud300 >> 8);
    out8(at + LCR, 3);
    out8(at + MCR, 3);
    /* FIFOs on and empty; an interrupt, which is only asked for, at 14 bytes. */
    out8(at + FCR, 0xc7);
    return at;
}

static void serial_send(char **args)
{
    static u8 buffer[65536];
    u16 at = serial(args[0]);
    i64 file = check(args[1], call(SYS_open, args[1], 0, 0)), got;
    u64 total = 0, began = now();
    while ((got = check("read", call(SYS_read, file, buffer, sizeof buffer))) > 0) {
        const u8 *from = buffer;
        for (total += got; got > 0;) {
            u64 count = got < fifo ? got : fifo;
            got -= count;
            while (!(in8(at + LSR) & 0x20))
                ;
            __asm__ volatile("rep outsb" : "+S"(from), "+c"(count) : "d"((u16)(at + DATA)) : "memory");
        }
    }
    /* Whoever asks for the port next empties its FIFO: all of it has gone by then. */
    while (!(in8(at + LSR) & 0x40))
        ;
    number("ns", now() - began);
    number("bytes", total);
}

static void serial_take(char **args)
{
    u16 at = serial(args[0]);
    i64 file = check(args[1], call(SYS_open, args[1], O_RDWR | O_CREAT, 0600));
    u64 total = parse(args[2], 10), left = total, began = now();
    static u8 buffer[fifo];
    out8(at + IER, 1);
    while (left) {
        u8 *to = buffer;
        u8 why = in8(at + IIR) & 0x0f;
        u64 count = why == 4 && left >= trigger ? trigger : why == 4 || why == 0x0c ? 1 : 0;
        u64 bytes = count;
        if (!count) {
            /* Asking is a trap each time: whoever sends meanwhile has the processor first. */
            call(SYS_sched_yield, 0, 0, 0);
            continue;
        }
        __asm__ volatile("rep insb" : "+D"(to), "+c"(count) : "d"((u16)(at + DATA)) : "memory");
        check("write", call(SYS_write, file, buffer, bytes));
        left -= bytes;
    }
    out8(at + IER, 0);
    number("ns", now() - began);
    number("bytes", total);
}

/* A lap has a thousand rounds, or as many more as there would otherwise be too many laps. */
static void cpu(char **args)
{
    u64 count = parse(args[0], 10), value = count | 1, rounds = count < 1000 ? 1 : 1000;
    if (count / rounds > most_samples)
        rounds = count / most_samples + 1;
    laps_begin(count / rounds);
    for (u64 left = count / rounds; left; left--) {
        for (u64 i = 0; i < rounds; i++)
            __asm__ volatile("imul %1, %0" : "+r"(value) : "r"(0x5851f42d4c957f2dul));
        lap();
    }
    laps_end(rounds);
}

static void disk(char **args)
{
    int write = same(args[1], "write"), random = same(args[2], "random"), flush = same(args[5], "flush");
    u64 block = parse(args[3], 10), count = parse(args[4], 10);
    if (block < 512 || block > most_block || block % 512 || count == 0 || count > most_samples)
        fail("block or count", 0);
    i64 fd = check(args[0], call(SYS_open, args[0], O_RDWR | O_DIRECT, 0));
    /* What the one has read, and whoever has the guest's QEMU has cached, is new to the other. */
    u64 blocks = check("lseek", call(SYS_lseek, fd, 0, 2)) / block / 2, first = random ? 0 : blocks;
    if (blocks == 0)
        fail("a disk smaller than two blocks", 0);
    u8 *buffer = memory(most_block);
    u32 *samples = memory(most_samples * sizeof *samples);
    for (u64 i = 0; i < block; i++)
        buffer[i] = next_random();
    u64 began = now(), before = began;
    for (u64 i = 0; i < count; i++) {
        u64 at = (first + (random ? next_random() >> 1 : i) % blocks) * block;
        i64 done = call6(write ? SYS_pwrite : SYS_pread, fd, (i64)buffer, block, at, 0, 0);
        if (done != (i64)block)
            fail(write ? "write" : "read", done);
        if (write && flush)
            check("flush", call(SYS_fdatasync, fd, 0, 0));
        u64 after = now();
        samples[i] = after - before > 0xffffffff ? 0xffffffff : after - before;
        before = after;
    }
    number("ns", before - began);
    number("bytes", block * count);
    number("count", count);
    distribution(samples, count);
}

static i64 connected(char **args, int type)
{
    struct { u16 family, port; u8 address[4], zero[8]; } to = { .family = AF_INET };
    u16 number_ = parse(args[1], 10);
    to.port = number_ << 8 | number_ >> 8;
    const char *s = args[0];
    for (int i = 0; i < 4; i++) {
        u32 value = 0;
        for (; *s >= '0' && *s <= '9'; s++)
            value = value * 10 + *s - '0';
        to.address[i] = value;
        if (*s == '.')
            s++;
    }
    i64 fd = check("socket", call(SYS_socket, AF_INET, type, 0));
    check("connect", call(SYS_connect, fd, &to, sizeof to));
    return fd;
}

static void tcp_send(char **args)
{
    i64 fd = connected(args, SOCK_STREAM);
    u64 total = parse(args[2], 10);
    u8 *buffer = memory(65536);
    u64 began = now();
    for (u64 left = total; left;)
        left -= check("send", call(SYS_write, fd, buffer, left < 65536 ? left : 65536));
    call(SYS_shutdown, fd, 1, 0);
    /* The other side closes when it has read all. */
    while (check("the other side", call(SYS_read, fd, buffer, 65536)) > 0)
        ;
    number("ns", now() - began);
    number("bytes", total);
}

static void tcp_receive(char **args)
{
    i64 fd = connected(args, SOCK_STREAM), got;
    u8 *buffer = memory(65536);
    u64 total = 0, began = now();
    while ((got = check("receive", call(SYS_read, fd, buffer, 65536))) > 0)
        total += got;
    number("ns", now() - began);
    number("bytes", total);
}

/* The next packet within 2 s, or 0. */
static i64 packet(i64 fd, u8 *into)
{
    struct { int fd; u16 events, came; } wait = { .fd = fd, .events = POLLIN };
    return call(SYS_poll, &wait, 1, 2000) > 0 ? call(SYS_read, fd, into, 2048) : 0;
}

static void udp_rate(char **args)
{
    i64 fd = connected(args, SOCK_DGRAM);
    u64 count = parse(args[2], 10), size = parse(args[3], 10);
    u8 *buffer = memory(4096);
    if (size < 2 || size > 1472)
        fail("size", 0);
    u64 began = now();
    for (u64 i = 0; i < count; i++)
        call(SYS_write, fd, buffer, size);
    number("ns", now() - began);
    number("count", count);
    for (int attempt = 0; attempt < 5; attempt++) {
        call(SYS_write, fd, "?", 1);
        i64 got = packet(fd, buffer);
        if (got <= 0 || got > 40)
            continue;
        buffer[got] = 0;
        char *span = (char *)buffer;
        while (*span && *span != ' ')
            span++;
        if (!*span)
            fail("a count without a time came", 0);
        *span++ = 0;
        number("received", parse((char *)buffer, 10));
        /* From the first that arrived to the last: what is still queued here has been sent, but has not gone. */
        number("span", parse(span, 10));
        return;
    }
    fail("no count came", 0);
}

static void udp_echo(char **args)
{
    i64 fd = connected(args, SOCK_DGRAM);
    u64 count = parse(args[2], 10), size = parse(args[3], 10);
    u8 *buffer = memory(4096);
    u32 *samples = memory(most_samples * sizeof *samples), kept = 0, lost = 0;
    if (size < 8 || size > 1472 || count == 0 || count > most_samples)
        fail("size or count", 0);
    for (u64 i = 0; i < count && lost < 5; i++) {
        u64 began = now();
        *(u64 *)buffer = i;
        call(SYS_write, fd, buffer, size);
        i64 got;
        /* One that comes after its time is not taken for the next one. */
        do
            got = packet(fd, buffer);
        while (got > 0 && *(u64 *)buffer != i);
        if (got > 0)
            samples[kept++] = now() - began;
        else
            lost++;
    }
    number("count", kept);
    number("lost", lost);
    if (!kept)
        fail("nothing came back", 0);
    distribution(samples, kept);
}

static void frames(char **args)
{
    struct { u16 family, protocol; int index; u16 type; u8 kind, length, address[8]; } link = { .family = AF_PACKET };
    link.index = parse(args[0], 10);
    /* Of no protocol: nothing is received, and what is sent says itself what it is. */
    i64 fd = check("socket", call(SYS_socket, AF_PACKET, SOCK_RAW, 0));
    check("bind", call(SYS_bind, fd, &link, sizeof link));
    i64 file = check(args[1], call(SYS_open, args[1], 0, 0)), got;
    u8 *buffer = memory(most_block);
    u64 size = 0, sent = 0;
    while (size < most_block && (got = check("read", call(SYS_read, file, buffer + size, most_block - size))) > 0)
        size += got;
    for (u64 at = 0; at + 2 <= size; sent++) {
        u64 length = buffer[at] | buffer[at + 1] << 8;
        at += 2;
        if (at + length > size)
            fail("a frame that is cut", 0);
        /* Its queue is full: until the NIC has taken some. */
        while ((got = call(SYS_write, fd, buffer + at, length)) < 0) {
            if (got != -ENOBUFS)
                fail("send", got);
            call(SYS_sched_yield, 0, 0, 0);
        }
        at += length;
    }
    number("sent", sent);
}

static const struct {
    const char *name;
    int arguments;
    void (*run)(char **);
} commands[] = {
    { "port", 2, port }, { "mmio", 2, mmio }, { "cpu", 1, cpu }, { "disk", 6, disk },
    { "tcp-send", 3, tcp_send }, { "tcp-receive", 2, tcp_receive },
    { "udp-rate", 4, udp_rate }, { "udp-echo", 4, udp_echo },
    { "frames", 2, frames }, { "serial-send", 2, serial_send }, { "serial-take", 3, serial_take },
};

__attribute__((used)) static void start(i64 *stack)
{
    i64 argc = stack[0];
    char **argv = (char **)(stack + 1);
    for (u32 i = 0; argc > 1 && i < sizeof commands / sizeof *commands; i++) {
        if (!same(argv[1], commands[i].name) || argc != commands[i].arguments + 2)
            continue;
        text(argv[1]);
        commands[i].run(argv + 2);
        end(0);
    }
    text("probe: no such command, or the wrong number of words");
    end(2);
}

__asm__(".globl _start\n_start: xor %ebp, %ebp\n mov %rsp, %rdi\n and $-16, %rsp\n call start\n");

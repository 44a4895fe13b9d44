/**
 * Captures what `ip` and `tc` say to the kernel, and what it answers, into `rtnetlink.json`.
 *
 *     tsx test/golden/netlink/capture.ts
 *
 * Needs root, strace and iproute2. Everything happens in a network namespace of its own, which ends with
 * the process. Review the difference by eye before committing it.
 */
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** Commands of which nothing is captured: they make the interfaces that the others are about. */
const setup = [
  "ip link add eth0 address 00:16:3e:01:02:03 type veth peer name peer0",
  "ip link add eth1 address 00:16:3E:01:02:04 mtu 9000 type veth peer name peer1",
  "ip tuntap add tap0 mode tap",
];

/** Captured in this order; each sees what the ones before it left. Some are there to be refused. */
const captured: readonly (readonly [name: string, command: string])[] = [
  ["list links", "ip -details link show"],
  ["find link", "ip link show dev eth1"],
  ["find link that is missing", "ip link show dev eth9"],
  ["change link", "ip link set dev eth0 arp off mtu 1400 txqueuelen 256"],
  ["set address", "ip link set dev eth0 address fe:ff:ff:ff:ff:ff"],
  ["set up", "ip link set dev eth0 up"],
  ["set down", "ip link set dev eth0 down"],
  ["refused change", "ip link set dev eth0 mtu 70000"],
  [
    "new bridge",
    "ip link add name br0 type bridge forward_delay 0 ageing_time 0 stp_state 0 group_fwd_mask 65528 mcast_snooping 0",
  ],
  ["new bridge that is there", "ip link add name br0 type bridge"],
  ["list links with a bridge", "ip link show"],
  ["set master", "ip link set dev eth0 master br0"],
  ["delete link", "ip link delete dev br0"],
  ["new ingress", "tc qdisc add dev eth0 ingress"],
  ["new ingress that is there", "tc qdisc add dev eth0 ingress"],
  [
    "new redirect",
    "tc filter add dev eth0 parent ffff: protocol all prio 1 u32 match u32 0 0 action mirred egress redirect dev eth1",
  ],
  ["list filters", "tc filter show dev eth0 parent ffff:"],
  ["delete ingress", "tc qdisc del dev eth0 ingress"],
  ["delete ingress that is missing", "tc qdisc del dev eth0 ingress"],
];

const NOTIFICATION = "00000000";

/** Bytes 8 to 11 of the (first) message, as they stand there. */
function sequence(hex: string): string {
  return hex.slice(16, 24);
}

interface Exchange {
  readonly sent: string[];
  readonly received: string[];
}

const scratch = mkdtempSync(join(tmpdir(), "netlink-capture-"));
try {
  const script = [
    ...setup,
    ...captured.map(
      ([, command], n) =>
        `strace -o ${scratch}/${n} -e trace=sendto,sendmsg,recvmsg -e read=3,4,5 -e write=3,4,5 ${command} >/dev/null 2>&1 || true`,
    ),
    // What a listener hears when interfaces go: RTM_DELLINK of a bridge's port, then of an interface.
    "ip link add name br1 type bridge && ip link set dev eth1 master br1",
    `strace -o ${scratch}/monitor -e trace=recvmsg -e read=3,4,5 ip monitor link >/dev/null 2>&1 & sleep 1`,
    "ip link set dev eth1 nomaster; ip link delete dev tap0; sleep 1; kill $!",
  ];
  execFileSync("unshare", ["--net", "sh", "-ec", script.join("\n")], { stdio: "inherit" });

  const golden = captured.map(([name, command], n) => {
    const whole = exchange(`${scratch}/${n}`);
    // Before its own request each tool looks up what it needs; "find link" is such a look-up.
    const request = name.startsWith("find link") ? whole.sent[1] : whole.sent.at(-1);
    if (request === undefined) throw new Error(`${command}: nothing captured`);
    const received = whole.received.filter((answer) => sequence(answer) === sequence(request));
    return { name, command, sent: [request], received };
  });
  const heard = exchange(`${scratch}/monitor`).received.filter((datagram) => sequence(datagram) === NOTIFICATION);
  golden.push({ name: "removals", command: "ip monitor link", sent: [], received: heard });
  const target = new URL("rtnetlink.json", import.meta.url);
  writeFileSync(target, `${JSON.stringify(golden, null, 1)}\n`);
} finally {
  rmSync(scratch, { recursive: true });
}

/** Reads strace's hex dumps: lines of ` | 00010  xx xx ...` after each call that moved bytes. */
function exchange(path: string): Exchange {
  const result: Exchange = { sent: [], received: [] };
  let current: string[] | undefined;
  for (const line of readFileSync(path, "utf8").split("\n")) {
    const dump = /^ \| ([0-9a-f]{5,}) {2}(.{49})/.exec(line);
    if (dump?.[2] !== undefined && current !== undefined) {
      current[current.length - 1] += dump[2].replaceAll(" ", "");
    } else if (/^(send|recv)/.test(line)) {
      current = line.startsWith("send") ? result.sent : result.received;
      current.push("");
    }
  }
  // A call that only asked how much there is to read moved nothing.
  return { sent: result.sent.filter(Boolean), received: result.received.filter(Boolean) };
}

/** The stub domain has no address on the guest's network and answers nothing, whoever asks. */

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { type Guest, xenstoreRead } from "../../../scripts/lab/guest.ts";
import { askGuest, inStubdom } from "../support.ts";

export interface SilentNic {
  readonly devid: number;
  /** The guest's address, `10.9.0.2`. */
  readonly own: string;
  /** The guest's name for it, `eth0`. */
  name(): string;
}

/** The guest's debug shell must be on. The NIC works as before at the end. */
export function silenceTests(guestOf: () => Guest, nic: SilentNic): void {
  const prefix = nic.own.replace(/\.\d+$/, "");

  it("the stub domain has no address, and listens on no port", async () => {
    const said = await inStubdom(
      guestOf(),
      "cat /proc/net/fib_trie /proc/net/tcp /proc/net/udp /proc/net/raw /proc/net/if_inet6 /proc/net/packet 2>&1",
    );
    expect(said).not.toMatch(/host LOCAL|32 host/);
    expect(said).not.toMatch(/^ *\d+: [0-9A-F]{8}:/m);
    expect(said).not.toMatch(/^fe80/m);
  });

  it("says nothing to dom0's network, whatever it is asked, while the guest is silent", async () => {
    const guest = guestOf();
    const { host } = guest;
    const vif = `vif${await guest.stubdomId()}.${nic.devid}`;
    const macs = await addresses(guest, nic);
    const script = await scanner(guest);
    const scan = async () => {
      const { stdout } = await host.run(["python3", script, vif, prefix, ...macs], { timeout: 600 });
      const [sent, ...answers] = stdout.trim().split("\n");
      return { sent: Number(sent?.split(" ")[1]), answers };
    };
    // Who answers is seen: the guest.
    expect((await scan()).answers).not.toEqual([]);
    await askGuest(guest, `ip link set ${nic.name()} down; echo "guest:" silent`, /guest: (silent)/);
    const { sent, answers } = await scan();
    console.log(`${sent} frames, ${answers.length} came back`);
    expect(sent).toBeGreaterThan(4000);
    expect(answers).toEqual([]);
    await askGuest(guest, `ip link set ${nic.name()} up; echo "guest:" loud`, /guest: (loud)/);
  }, 900_000);

  it("says nothing to the guest, whatever it asks, while the network is cut off", async () => {
    const guest = guestOf();
    const { host } = guest;
    const vif = `vif${await guest.stubdomId()}.${nic.devid}`;
    const macs = await addresses(guest, nic);
    const file = "/root/frames";
    const own = await xenstoreRead(
      host,
      `/local/domain/${await guest.stubdomId()}/device/vif/${nic.devid}/mac`,
    );
    const written = await host.run([
      "python3",
      await scanner(guest),
      "write",
      file,
      own ?? "",
      prefix,
      ...macs,
    ]);
    const server = host.spawn(["socat", "-u", `OPEN:${file}`, "TCP-LISTEN:7300,reuseaddr"]);
    await host.run("for i in $(seq 100); do ss -ltn | grep -q ':7300 ' && exit; sleep 0.1; done; exit 1");
    const fetched = await askGuest(guest, `takeframes ${prefix}.1 7300`, /guest: frames (\d+)/);
    server.kill(15);
    expect(fetched).toBe((await host.run(`wc -c < ${file}`)).stdout.trim());
    const knock = () =>
      askGuest(guest, `knock ${nic.name()}`, /guest: knocked (\d+ came, frames sent=\d+)/, 900);
    // Who answers is seen: dom0.
    expect(await knock()).not.toMatch(/^0 came/);
    // Not just off its bridge: dom0 itself would answer for the addresses that it has elsewhere.
    await host.run(["ip", "link", "set", vif, "down"]);
    const said = await knock();
    await host.run(["ip", "link", "set", vif, "up"]);
    const count = Number(/^written (\d+)/.exec(written.stdout)?.[1]);
    expect(count).toBeGreaterThan(4000);
    expect(said).toBe(`0 came, frames sent=${count}`);
  }, 1200_000);
}

/** Where it is in dom0. */
async function scanner({ host }: Guest): Promise<string> {
  const path = "/root/scan.py";
  await host.push(readFileSync(join(import.meta.dirname, "../dom0/scan.py")), path);
  return path;
}

/** Of both of the NIC's interfaces in the stub domain: the netfront has the guest's, the TAP one of its own. */
async function addresses(guest: Guest, { devid }: SilentNic): Promise<string[]> {
  const path = `/sys/bus/xen/devices/vif-${devid}/net/*/address /sys/class/net/tap${devid}/address`;
  const found = (await inStubdom(guest, `cat ${path}`)).match(/([0-9a-f]{2}:){5}[0-9a-f]{2}/g) ?? [];
  expect(found).toHaveLength(2);
  return found;
}

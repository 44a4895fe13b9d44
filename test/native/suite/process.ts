import * as native from "stubdom-native";
import {
  CLOSED,
  close,
  done,
  equal,
  errno,
  type Group,
  holds,
  list,
  ready,
  refusals,
  throws,
} from "../harness.ts";

const SIGCHLD = 17;
const SIGUSR1 = 10;
const NEW_SESSION = 1;
const CONTROLLING_TERMINAL = 2;
const CONFINED = 4;

/** Runs `argv` to its end with standard output caught. */
async function run(argv: (string | Uint8Array)[], env: string[] = [], flags = 0): Promise<[string, unknown]> {
  const [output, input] = list(native.pipe());
  const pid = done(native.spawn(argv, env, [-1, input, 2], flags));
  close(input);
  let printed = "";
  const bytes = new Uint8Array(4096);
  for (;;) {
    await ready(output);
    const count = done(native.read(output, bytes));
    if (count === 0) break;
    printed += native.decodeText(bytes.subarray(0, count));
  }
  close(output);
  return [printed, await reaped(pid)];
}

async function reaped(pid: number): Promise<unknown> {
  for (;;) {
    const ended = native.reap();
    if (ended !== null) {
      equal(ended[0], pid);
      return ended.slice(1);
    }
    const [a, b] = list(native.pipe());
    close(a, b);
  }
}

const anyArray = (value: unknown) => value as string[];

export const processTests: Record<string, Group> = {
  executedAt: {
    "is while spawn does its work": async () => {
      const before = native.now();
      const pid = done(native.spawn(["/bin/true"], [], [], 0));
      const at = native.executedAt();
      holds(at >= before && at <= native.now(), `${at} after ${before}`);
      equal(await reaped(pid), [0, null]);
    },
  },
  spawn: {
    "has a standard input that blocks, with nothing to read yet": async () => {
      const [ours, theirs] = list(native.socketPair());
      const [output, input] = list(native.pipe());
      const pid = done(native.spawn(["/bin/sh", "-c", "echo up; head -n 1"], [], [theirs, input, 2], 0));
      close(theirs, input);
      const bytes = new Uint8Array(64);
      await ready(output);
      equal(done(native.read(output, bytes)), 3);
      done(native.write(ours, new Uint8Array(native.encodeText("typed\n"))));
      await ready(output);
      const count = done(native.read(output, bytes));
      equal(native.decodeText(bytes.subarray(0, count)), "typed\n");
      close(ours, output);
      equal(await reaped(pid), [0, null]);
    },
    "runs with arguments, bytes and environment": async () => {
      const bytes = Uint8Array.of(0xff, 0x61);
      const [printed, ended] = await run(
        ["/bin/sh", "-c", 'printf "%s|%s|%s" "$1" "$2" "$X"', "sh", bytes, ""],
        ["X=y z"],
      );
      equal(printed, "\ufffda||y z");
      equal(ended, [0, null]);
    },
    "closes every other descriptor in the child": async () => {
      const spare = Array.from({ length: 50 }, () => list(native.pipe())).flat();
      const [printed] = await run(["/bin/sh", "-c", "ls /proc/self/fd | tr '\\n' ' '"]);
      close(...spare);
      equal(printed, "0 1 2 3 ");
    },
    "puts descriptors in their places, crossed ones too": async () => {
      const [a, b] = list(native.pipe());
      const [c, d] = list(native.pipe());
      const pid = done(
        native.spawn(["/bin/sh", "-c", `printf one >&${a}; printf two >&${c}`], [], placed(a, c, b, d), 0),
      );
      await reaped(pid);
      const bytes = new Uint8Array(10);
      equal(native.decodeText(bytes.subarray(0, done(native.read(a, bytes)))), "one");
      equal(native.decodeText(bytes.subarray(0, done(native.read(c, bytes)))), "two");
      close(a, b, c, d);
    },
    "starts a session, without a terminal to control": async () => {
      const [printed] = await run(
        ["/bin/sh", "-c", 'set -- $(cat /proc/$$/stat); echo "$(( $1 == $6 ))"'],
        [],
        NEW_SESSION,
      );
      equal(printed, "1\n");
      equal(native.spawn(["/bin/true"], [], [-1], NEW_SESSION | CONTROLLING_TERMINAL), errno.ENOTTY);
    },
    "leaves what is confined two capabilities, and none over us": async () => {
      const sets = async (flags: number) => {
        const [printed] = await run(
          ["/bin/grep", "-E", "^Cap(Prm|Eff|Amb):", "/proc/self/status"],
          [],
          flags,
        );
        return printed.match(/[0-9a-f]{16}/g)?.map((mask) => BigInt(`0x${mask}`)) ?? [];
      };
      const [all = 0n] = await sets(0);
      // CAP_SYS_RAWIO and CAP_SYS_ADMIN, where we have them.
      const kept = all & 0x22_0000n;
      equal((await sets(CONFINED)).join(" "), [kept, kept, kept].join(" "));
      const [said, ended] = await run(
        ["/bin/sh", "-c", "exec 2>&1; exec head -c 1 /proc/$PPID/mem"],
        [],
        CONFINED,
      );
      holds(/Permission denied/.test(said), said);
      equal(ended, [1, null]);
      const limit = ["/bin/sh", "-c", "exec prlimit --pid $PPID --nofile=1024:1024 2>&1"];
      // Whoever has no capabilities to begin with is not of another group either.
      const [, limited] = await run(limit, [], all === 0n ? 0 : CONFINED);
      equal(limited, [all === 0n ? 0 : 1, null]);
    },
    "reports what execve says": () => {
      equal(native.spawn(["/nowhere"], [], [], 0), errno.ENOENT);
      equal(native.spawn(["/tmp"], [], [], 0), errno.EACCES);
      equal(native.spawn([""], [], [], 0), errno.ENOENT);
      equal(native.spawn(["/bin/true", "x".repeat(200_000)], [], [], 0), -7);
      equal(native.reap(), null);
    },
    "refuses descriptors that are closed or too many": () => {
      equal(native.spawn(["/bin/true"], [], [CLOSED], 0), errno.EBADF);
      equal(native.spawn(["/bin/true"], [], new Array(65).fill(-1), 0), -24);
    },
    "no arguments, too many": () => {
      equal(native.spawn([], [], [], 0), errno.EINVAL);
      throws(() => native.spawn(new Array(8193).fill("x"), [], [], 0), RangeError);
      throws(() => native.spawn(anyArray({ length: 2 ** 53 }), [], [], 0), RangeError);
    },
    "lists that lie about their length": () => {
      for (const length of [-1, -2, -5, -(2 ** 31), -(2 ** 40)]) {
        const lie = anyArray({ length });
        throws(() => native.spawn(lie, [], [], 0), RangeError);
        throws(() => native.spawn(["/bin/true"], lie, [], 0), RangeError);
        throws(() => native.spawn(["/bin/true"], [], lie as unknown as number[], 0), RangeError);
      }
    },
    "lists that are none": () => {
      const get = () => {
        throw new RangeError("trap");
      };
      const trap = Object.defineProperty({}, "length", { get });
      const trapped = Object.defineProperty({ length: 2, 0: "x" }, 1, { get });
      for (const wrong of [null, undefined]) {
        throws(() => native.spawn(anyArray(wrong), [], [], 0));
        throws(() => native.spawn(["/bin/true"], anyArray(wrong), [], 0));
        throws(() => native.spawn(["/bin/true"], [], wrong as unknown as number[], 0));
      }
      for (const wrong of [trap, trapped]) {
        throws(() => native.spawn(anyArray(wrong), [], [], 0), RangeError);
        throws(() => native.spawn(["/bin/true"], anyArray(wrong), [], 0), RangeError);
        throws(() => native.spawn(["/bin/true"], [], wrong as unknown as number[], 0), RangeError);
      }
    },
    "items that are no strings": () => {
      for (const wrong of [null, undefined, 5, {}, Symbol("x"), new ArrayBuffer(4)]) {
        throws(() => native.spawn(["/bin/true", wrong as string], [], [], 0));
        throws(() => native.spawn(["/bin/true"], ["A=1", wrong as string], [], 0));
      }
      throws(() => native.spawn(["/bin/true"], [], [Symbol("x") as unknown as number], 0));
      throws(() => native.spawn(["/bin/true"], [], [], Symbol("x") as unknown as number));
    },
  },
  reap: {
    nobody: () => equal(native.reap(), null),
    "an exit code and a signal": async () => {
      equal(await reaped(done(native.spawn(["/bin/sh", "-c", "exit 7"], [], [], 0))), [7, null]);
      equal(await reaped(done(native.spawn(["/bin/sh", "-c", "kill -KILL $$"], [], [], 0))), [-1, "SIGKILL"]);
      equal(await reaped(done(native.spawn(["/bin/sh", "-c", "kill -40 $$"], [], [], 0))), [-1, "SIG?"]);
    },
  },
  kill: {
    ...refusals("kill", native.kill, "integer", "integer"),
    "neither everybody, nor groups, nor PID 1": () => {
      for (const pid of [1, 0, -1, -100, Number.NaN]) equal(native.kill(pid, 9), errno.EPERM);
    },
    "nobody, and no signal": () => {
      equal(native.kill(2 ** 22 + 1, 0), -3);
      equal(native.kill(native.pid(), 1000), errno.EINVAL);
      equal(native.kill(native.pid(), 0), 0);
    },
  },
  yieldWakeUps: {
    ...refusals("yieldWakeUps", native.yieldWakeUps, "integer"),
    "neither ourselves, nor PID 1": () => {
      for (const pid of [1, 0, -1, Number.NaN]) equal(native.yieldWakeUps(pid), errno.EPERM);
    },
    "nobody, and a process": () => {
      equal(native.yieldWakeUps(2 ** 22 + 1), -3);
      equal(native.yieldWakeUps(native.pid()), 0);
    },
  },
  signals: {
    delivers: async () => {
      const fd = done(native.signals([SIGUSR1, SIGCHLD]));
      equal(native.kill(native.pid(), SIGUSR1), 0);
      await ready(fd);
      const record = new Uint8Array(128);
      equal(native.read(fd, record), 128);
      equal(record[0], SIGUSR1);
      close(fd);
    },
    "numbers and lists that are none": () => {
      for (const number of [0, -1, 65, 1 << 30]) equal(native.signals([number]), errno.EINVAL);
      for (const wrong of [null, undefined]) throws(() => native.signals(wrong as unknown as number[]));
      throws(() => native.signals([Symbol("x") as unknown as number]));
      throws(() => native.signals({ length: -5 } as unknown as number[]), RangeError);
      close(done(native.signals([])));
    },
  },
  endWithin: {
    ...refusals("endWithin", native.endWithin, "integer"),
    "only process 1 ends the machine"() {
      equal(native.endWithin(0), errno.EPERM);
    },
  },
  crashAlong: {
    ...refusals("crashAlong", native.crashAlong, "integer"),
    "a domain, and for process 1 alone"() {
      equal(native.crashAlong(1), errno.EPERM);
      for (const domid of [-1, 0x7ff0, 1 << 30]) equal(native.crashAlong(domid), errno.EINVAL);
    },
  },
  powerOff: {
    ...refusals("powerOff", native.powerOff, "text"),
    "is for PID 1 alone": () => {
      for (const how of ["poweroff", "reboot", "crash", ""]) equal(native.powerOff(how), errno.EPERM);
    },
  },
  exit: refusals("exit", native.exit, "integer"),
  pid: { "is ours": () => holds(native.pid() > 1, "a PID") },
  environment: {
    ...refusals("environment", native.environment, "text"),
    "set and unset": () => {
      holds(typeof native.environment("PATH") === "string", "PATH is set");
      equal(native.environment("STUBDOM_NO_SUCH_VARIABLE"), undefined);
      equal(native.environment(""), undefined);
    },
  },
};

/** A list of descriptors that has `b` at place `a` and `d` at place `c`. */
function placed(a: number, c: number, b: number, d: number): number[] {
  const places: number[] = new Array(Math.max(a, c) + 1).fill(-1);
  places[a] = b;
  places[c] = d;
  return places;
}

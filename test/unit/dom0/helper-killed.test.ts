import { expect, test } from "vitest";
import { helperHome, stateDevice } from "../../../agent/savestate/protocol.ts";
import { eachOf } from "../../each-of.ts";
import { qemuState } from "../savestate/support.ts";
import { HelperWorld, until } from "./helper-world.ts";

const [S, T] = [5, 4];
const state = qemuState(20_000, 1);

type Side = "helper" | "stubdom";

/** Where in a save that side is killed: at which step, and at its how-manieth. */
interface Point {
  readonly side: Side;
  readonly name: string;
  readonly occurrence: number;
}

async function inWorld<T>(work: (world: HelperWorld) => Promise<T>): Promise<T> {
  const world = await HelperWorld.start();
  try {
    return await work(world);
  } finally {
    await world.stop();
  }
}

const met = ({ daemon }: HelperWorld) => until(() => daemon.get(`${helperHome}/${S}/answer`) !== undefined);

/** Of one save: each step's first and last, and one between. */
async function learnPoints(world: HelperWorld): Promise<Point[]> {
  const { process } = await world.startHelper();
  world.host.addStubdom(S, T);
  const guest = world.stubdom(S, T, state);
  await met(world);
  const began = process.steps.length;
  await guest.save();
  return [...pointsOf("helper", process.steps.slice(began)), ...pointsOf("stubdom", guest.process.steps)];
}

function pointsOf(side: Side, steps: readonly string[]): Point[] {
  const counts = new Map<string, number>();
  for (const step of steps) counts.set(step, (counts.get(step) ?? 0) + 1);
  return [...counts].flatMap(([name, count]) =>
    [...new Set([1, Math.ceil(count / 2), count])].map((occurrence) => ({ side, name, occurrence })),
  );
}

async function killAt(world: HelperWorld, { side, name, occurrence }: Point): Promise<void> {
  const { host, daemon } = world;
  const label = `${side} killed at "${name}" number ${occurrence}`;
  const victim = await world.startHelper();
  host.addStubdom(S, T);
  const guest = world.stubdom(S, T, state);
  await met(world);
  const process = side === "helper" ? victim.process : guest.process;
  let left = occurrence;
  process.onStep = (step) => {
    if (step !== name || --left !== 0) return;
    process.kill();
    host.hurry();
  };
  // A stub domain that was killed is silent for good; what a helper was killed under must speak, on a busy machine late.
  const silent = async () => {
    if (side === "stubdom") await until(() => process.dead);
    await new Promise((resolve) => setTimeout(resolve, side === "stubdom" ? 1500 : 20_000));
    return "silent";
  };
  const saving = guest.save().then(
    () => "saved",
    () => "failed",
  );
  const outcome = await Promise.race([saving, silent()]);
  expect(process.dead, label).toBe(true);
  // What lies under the final name is whole, and it is there if xl was told so.
  const file = world.saved(T);
  if (file !== undefined) expect(Buffer.from(file).equals(Buffer.from(state)), label).toBe(true);
  // Killed before it answered at all, the state goes over console 1.
  const overConsole = guest.process.consoleOutput.length > state.length;
  if (outcome === "saved") expect(file !== undefined || overConsole, label).toBe(true);
  if (side === "helper") expect(outcome, label).not.toBe("silent");
  if (side === "stubdom") host.destroy(S, T);
  if (!victim.process.dead) await victim.helper.stop();
  victim.process.kill();
  await world.startHelper();
  const { number } = stateDevice;
  await until(() => host.loops.length === 0 && daemon.get(`/local/domain/0/backend/vbd/${S}`) === undefined);
  await until(() => daemon.get(`/local/domain/${S}/device/vbd/${number}`) === undefined);
  await until(() => daemon.get(`/libxl/${S}/device/vbd/${number}`) === undefined);
  world.expectNothingLeft(S);
  host.calm();
  if (side === "stubdom") return;
  await met(world);
  await guest.save();
  expect(world.saved(T), label).toEqual(state);
}

test("killed at every step, on either side: no half state, no leak, and the next save works", async () => {
  const points = await inWorld(learnPoints);
  const of = (wanted: Side) => points.filter(({ side }) => side === wanted).length;
  console.log(`kill points: ${of("helper")} of the helper, ${of("stubdom")} of the stub domain`);
  expect(of("helper")).toBeGreaterThanOrEqual(12);
  expect(of("stubdom")).toBeGreaterThanOrEqual(8);
  await eachOf(points, 8, (point) => inWorld((world) => killAt(world, point)));
}, 240_000);

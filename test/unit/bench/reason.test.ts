import { expect, test } from "vitest";
import { reasonOf } from "../../../scripts/bench/reason.ts";
import { RemoteFailure } from "../../../scripts/lab/errors.ts";

test("the first thing that Xen's tools complain of, without where in their source", () => {
  const stderr = `Parsing config from /root/a/guest.cfg
libxl: error: libxl_dm.c:2914:libxl__spawn_local_dm: Domain 2:device model /usr/bin/dm is not executable: No such file
libxl: error: libxl_create.c:1957:domcreate_devmodel_started: Domain 1:device model did not start: -3
`;
  expect(reasonOf(new RemoteFailure("xl create a", 3, "", stderr))).toBe(
    "in dom0: xl create a: exit status 3: device model /usr/bin/dm is not executable: No such file",
  );
});

test.each([
  [
    "xc: error: panic: xg_dom_core.c:230: '/root/a.gz': zero length file: Internal error",
    "'/root/a.gz': zero length file: Internal error",
  ],
  [
    "xc: error: panic: xg_dom_core.c:689: xc_dom_find_loader: no loader found: Invalid kernel",
    "no loader found: Invalid kernel",
  ],
  ["libxl: error: libxl_dom.c:641:libxl__build_pv: it failed", "it failed"],
  ["xc: error: short", "short"],
])("%s", (line, said) => {
  expect(reasonOf(new Error(`xl\n${line}`))).toBe(`xl: ${said}`);
});

test("else what was thrown, its first line", () => {
  expect(reasonOf(new Error("no answer\nlast lines:\nguest: up"))).toBe("no answer");
  expect(reasonOf("gone")).toBe("gone");
  expect(reasonOf(new Error(""))).toBe("");
});

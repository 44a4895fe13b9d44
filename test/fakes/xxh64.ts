/**
 * XXH64 (xxHash, doc/xxhash_spec.md) in JavaScript, for tests: the agent's own is in C. 64-bit numbers are
 * kept as two 32-bit halves in module variables, because BigInt would make ten thousand mutations slow.
 */

let hi = 0;
let lo = 0;

function set(high: number, low: number): void {
  hi = high >>> 0;
  lo = low >>> 0;
}

/** (ah:al) * (bh:bl), modulo 2^64. */
function multiply(ah: number, al: number, bh: number, bl: number): void {
  const a0 = al & 0xffff;
  const a1 = al >>> 16;
  const b0 = bl & 0xffff;
  const b1 = bl >>> 16;
  const p00 = a0 * b0;
  const p01 = a0 * b1;
  const p10 = a1 * b0;
  const middle = (p00 >>> 16) + (p01 & 0xffff) + (p10 & 0xffff);
  const low = ((p00 & 0xffff) | (middle << 16)) >>> 0;
  const carry = (middle >>> 16) + (p01 >>> 16) + (p10 >>> 16) + a1 * b1;
  set((carry + Math.imul(ah, bl) + Math.imul(al, bh)) | 0, low);
}

function add(ah: number, al: number, bh: number, bl: number): void {
  const low = al + bl;
  set((ah + bh + (low > 0xffffffff ? 1 : 0)) | 0, low | 0);
}

function rotate(high: number, low: number, bits: number): void {
  if (bits < 32) {
    set((high << bits) | (low >>> (32 - bits)), (low << bits) | (high >>> (32 - bits)));
  } else {
    const rest = bits - 32;
    if (rest === 0) set(low, high);
    else set((low << rest) | (high >>> (32 - rest)), (high << rest) | (low >>> (32 - rest)));
  }
}

const p1 = [0x9e3779b1, 0x85ebca87] as const;
const p2 = [0xc2b2ae3d, 0x27d4eb4f] as const;
const p3 = [0x165667b1, 0x9e3779f9] as const;
const p4 = [0x85ebca77, 0xc2b2ae63] as const;
const p5 = [0x27d4eb2f, 0x165667c5] as const;

/** round(accumulator, input) of the specification. */
function lane(ah: number, al: number, ih: number, il: number): void {
  multiply(ih, il, p2[0], p2[1]);
  add(ah, al, hi, lo);
  rotate(hi, lo, 31);
  multiply(hi, lo, p1[0], p1[1]);
}

function merge(ah: number, al: number): void {
  const [h, l] = [hi, lo];
  lane(0, 0, ah, al);
  multiply(h ^ hi, (l ^ lo) >>> 0, p1[0], p1[1]);
  add(hi, lo, p4[0], p4[1]);
}

export function xxh64(bytes: Uint8Array, seed: bigint): bigint {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const sh = Number((seed >> 32n) & 0xffffffffn);
  const sl = Number(seed & 0xffffffffn);
  let at = 0;
  if (bytes.length >= 32) {
    const accumulators = [
      [...p1, ...p2],
      [0, 0, ...p2],
      [0, 0, 0, 0],
    ].map((parts) => {
      add(parts[0] ?? 0, parts[1] ?? 0, parts[2] ?? 0, parts[3] ?? 0);
      add(hi, lo, sh, sl);
      return [hi, lo] as [number, number];
    });
    // seed - PRIME_1
    add(~p1[0] >>> 0, ~p1[1] >>> 0, 0, 1);
    add(hi, lo, sh, sl);
    accumulators.push([hi, lo]);
    for (; at + 32 <= bytes.length; at += 32) {
      for (const [i, accumulator] of accumulators.entries()) {
        const low = view.getUint32(at + 8 * i, true);
        lane(accumulator[0], accumulator[1], view.getUint32(at + 8 * i + 4, true), low);
        accumulator[0] = hi;
        accumulator[1] = lo;
      }
    }
    let [h, l] = [0, 0];
    for (const [i, [ah, al]] of accumulators.entries()) {
      rotate(ah, al, [1, 7, 12, 18][i] ?? 0);
      add(h, l, hi, lo);
      [h, l] = [hi, lo];
    }
    for (const [ah, al] of accumulators) {
      set(h, l);
      merge(ah, al);
      [h, l] = [hi, lo];
    }
  } else {
    add(sh, sl, p5[0], p5[1]);
  }
  add(hi, lo, 0, bytes.length);
  let [h, l] = [hi, lo];
  for (; at + 8 <= bytes.length; at += 8) {
    lane(0, 0, view.getUint32(at + 4, true), view.getUint32(at, true));
    rotate(h ^ hi, l ^ lo, 27);
    multiply(hi, lo, p1[0], p1[1]);
    add(hi, lo, p4[0], p4[1]);
    [h, l] = [hi, lo];
  }
  for (; at + 4 <= bytes.length; at += 4) {
    multiply(0, view.getUint32(at, true), p1[0], p1[1]);
    rotate(h ^ hi, l ^ lo, 23);
    multiply(hi, lo, p2[0], p2[1]);
    add(hi, lo, p3[0], p3[1]);
    [h, l] = [hi, lo];
  }
  for (; at < bytes.length; at++) {
    multiply(0, bytes[at] ?? 0, p5[0], p5[1]);
    rotate(h ^ hi, l ^ lo, 11);
    multiply(hi, lo, p1[0], p1[1]);
    [h, l] = [hi, lo];
  }
  // Shifts of the final mix: h >> 33, >> 29, >> 32.
  multiply(h, (l ^ (h >>> 1)) >>> 0, p2[0], p2[1]);
  [h, l] = [hi, lo];
  multiply((h ^ (h >>> 29)) >>> 0, (l ^ ((l >>> 29) | (h << 3))) >>> 0, p3[0], p3[1]);
  return (BigInt(hi) << 32n) | BigInt((lo ^ hi) >>> 0);
}

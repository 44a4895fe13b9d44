/**
 * rtnetlink's messages about traffic control, as far as a redirection needs them: <linux/rtnetlink.h>,
 * <linux/pkt_cls.h>, <linux/tc_act/tc_mirred.h>. Pure.
 *
 *     tcmsg
 *     0        1     4         8        12       16       20
 *     +--------+-----+---------+--------+--------+--------+------------ - - -
 *     | family | pad | index   | handle | parent | info   | attributes
 *     +--------+-----+---------+--------+--------+--------+------------ - - -
 *       u8             s32       u32      u32      u32: of a filter, priority << 16 | protocol (big-endian)
 *
 *     attributes of the filter
 *     KIND "u32"
 *     OPTIONS
 *       ACT
 *         1
 *           KIND "mirred"
 *           OPTIONS
 *             PARMS  tc_mirred
 *       SEL  tc_u32_sel
 */
import { NLA_F_NESTED, Payload, type Words } from "./netlink.ts";

export const RTM_NEWQDISC = 36;
export const RTM_DELQDISC = 37;
export const RTM_NEWTFILTER = 44;

const TC_H_INGRESS = 0xfffffff1;
/** The one handle that an ingress qdisc can have. */
const INGRESS_HANDLE = 0xffff0000;

const ETH_P_ALL_BIG_ENDIAN = 0x0300;
const PRIORITY = 1;

const TCA_KIND = 1;
const TCA_OPTIONS = 2;
const TCA_U32_SEL = 5;
const TCA_U32_ACT = 7;
const TCA_ACT_KIND = 1;
const TCA_ACT_OPTIONS = 2;
const TCA_MIRRED_PARMS = 2;

const TC_U32_TERMINAL = 1;
const TC_ACT_STOLEN = 4;
const TCA_EGRESS_REDIR = 1;

/** A condition on four bytes of the packet; see tc-u32(8). */
export interface U32Key {
  /** `value` and `mask` as they stand in the packet, first byte in the lowest bits. */
  readonly mask: number;
  readonly value: number;
  /** Bytes from the network header. */
  readonly offset: number;
}

function about(index: number, handle: number, parent: number, info: number): Payload {
  return new Payload(0, index, handle, parent, info);
}

/** RTM_NEWQDISC: the place on interface `index` where filters see each frame as it comes in. */
export function newIngress(index: number): Payload {
  return about(index, INGRESS_HANDLE, TC_H_INGRESS, 0).text(TCA_KIND, "ingress");
}

/** RTM_DELQDISC: removes that place, and with it every filter there. */
export function deleteIngress(index: number): Payload {
  return newIngress(index);
}

/**
 * RTM_NEWTFILTER: each frame that comes in on `from` and fulfils all `keys` is sent out on `to`, as it is.
 * The kernel then drops what `to` does not take; nothing reaches the stack behind `from`.
 *
 * Without keys u32 takes every frame, the short ones too that a key would have to look beyond. (matchall
 * would say the same; u32 is in nearly every kernel that has a classifier at all, so that tests on
 * any machine exercise the very filter of the stub domain.)
 */
export function newRedirect(from: number, to: number, keys: readonly U32Key[]): Payload {
  return about(from, 0, INGRESS_HANDLE, (PRIORITY << 16) | ETH_P_ALL_BIG_ENDIAN)
    .text(TCA_KIND, "u32")
    .nest(TCA_OPTIONS, (options) =>
      options
        .nest(TCA_U32_ACT, (actions) =>
          actions.nest(1, (action) =>
            action
              .text(TCA_ACT_KIND, "mirred")
              .nest(TCA_ACT_OPTIONS | NLA_F_NESTED, (inside) => inside.nest(TCA_MIRRED_PARMS, mirred(to))),
          ),
        )
        .nest(TCA_U32_SEL, selector(keys)),
    );
}

/**
 *     tc_mirred
 *     0       4            8        12         16          20       24
 *     +-------+------------+--------+----------+-----------+--------+-------+
 *     | index | capability | action | refcount | bindcount | egress | link  |
 *     +-------+------------+--------+----------+-----------+--------+-------+
 */
function mirred(to: number): Words {
  return [0, 0, TC_ACT_STOLEN, 0, 0, TCA_EGRESS_REDIR, to];
}

/**
 *     tc_u32_sel                                                    keys, 16 bytes each
 *     0       1       2      3     4        6     8      10     12      16     20      24       28
 *     +-------+-------+------+-----+--------+-----+------+------+-------+------+-------+--------+---------+
 *     | flags | shift | keys | pad | mask   | off | from | hash | mask  | mask | value | offset | offmask |
 *     +-------+-------+------+-----+--------+-----+------+------+-------+------+-------+--------+---------+
 */
function selector(keys: readonly U32Key[]): Words {
  const words = [TC_U32_TERMINAL | (keys.length << 16), 0, 0, 0];
  for (const { mask, value, offset } of keys) words.push(mask, value, offset, 0);
  return words;
}

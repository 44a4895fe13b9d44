/*
 * The numbers of keys. Linux' input layer (linux/input-event-codes.h) gives a key of the main block the
 * number of its XT scan code. QEMU's numbers are XT scan codes throughout: the byte after E0 with its top
 * bit set for the keys that were added later, and a few codes of its own (`qnum` of keycodemapdb, which
 * ui/input-keymap-qnum-to-qcode.c.inc is made from).
 */

/** KEY_ESC to KEY_KPDOT: the PC/XT's own keys, of one number in both. */
const lastOfTheFirst = 83;

/** The keys that differ, by Linux' number. Those without a name of QEMU's are not here: it drops them. */
const others: Readonly<Record<number, number>> = {
  86: 0x56, // 102nd key, left of Z
  87: 0x57, // F11
  88: 0x58, // F12
  89: 0x73, // RO
  91: 0x77, // HIRAGANA
  92: 0x79, // HENKAN
  93: 0x70, // KATAKANAHIRAGANA
  94: 0x7b, // MUHENKAN
  96: 0x9c, // KPENTER
  97: 0x9d, // RIGHTCTRL
  98: 0xb5, // KPSLASH
  99: 0x54, // SYSRQ, Print Screen
  100: 0xb8, // RIGHTALT
  102: 0xc7, // HOME
  103: 0xc8, // UP
  104: 0xc9, // PAGEUP
  105: 0xcb, // LEFT
  106: 0xcd, // RIGHT
  107: 0xcf, // END
  108: 0xd0, // DOWN
  109: 0xd1, // PAGEDOWN
  110: 0xd2, // INSERT
  111: 0xd3, // DELETE
  113: 0xa0, // MUTE
  114: 0xae, // VOLUMEDOWN
  115: 0xb0, // VOLUMEUP
  116: 0xde, // POWER
  117: 0x59, // KPEQUAL
  119: 0xc6, // PAUSE
  121: 0x7e, // KPCOMMA
  122: 0x72, // HANGEUL
  123: 0x71, // HANJA
  124: 0x7d, // YEN
  125: 0xdb, // LEFTMETA
  126: 0xdc, // RIGHTMETA
  127: 0xdd, // COMPOSE, the menu key of a 105-key board
  128: 0xe8, // STOP
  129: 0x85, // AGAIN
  130: 0x86, // PROPS
  131: 0x87, // UNDO
  132: 0x8c, // FRONT
  133: 0xf8, // COPY
  134: 0x64, // OPEN
  135: 0x65, // PASTE
  136: 0xc1, // FIND
  137: 0xbc, // CUT
  138: 0xf5, // HELP
  139: 0x9e, // MENU
  140: 0xa1, // CALC
  142: 0xdf, // SLEEP
  143: 0xe3, // WAKEUP
  155: 0xec, // MAIL
  156: 0xe6, // BOOKMARKS
  157: 0xeb, // COMPUTER
  158: 0xea, // BACK
  159: 0xe9, // FORWARD
  163: 0x99, // NEXTSONG
  164: 0xa2, // PLAYPAUSE
  165: 0x90, // PREVIOUSSONG
  166: 0xa4, // STOPCD
  172: 0xb2, // HOMEPAGE
  173: 0xe7, // REFRESH
  183: 0x5d, // F13
  184: 0x5e, // F14
  185: 0x5f, // F15
  186: 0x55, // F16
  187: 0x83, // F17
  188: 0xf7, // F18
  189: 0x84, // F19
  190: 0x5a, // F20
  191: 0x74, // F21
  192: 0xf9, // F22
  193: 0x6d, // F23
  194: 0x6f, // F24
};

/** QEMU's number of the key with Linux' number `code`; `undefined` for one that QEMU does not know. */
export function qemuKey(code: number): number | undefined {
  return code >= 1 && code <= lastOfTheFirst ? code : others[code];
}

/** A CD that boots (El Torito, "no emulation") and says so on the first serial port. */

const SECTOR = 2048;
const bootRecord = 17;
const catalog = 19;
const image = 20;

/** 16-bit code, loaded to 7C00h: each byte of the text behind it to COM1, and rest. */
// biome-ignore format: an instruction a line
const code = [
  0x31, 0xc0,             //       xor ax, ax
  0x8e, 0xd8,             //       mov ds, ax
  0xbe, 0x15, 0x7c,       //       mov si, text
  0xac,                   // next: lodsb
  0x84, 0xc0,             //       test al, al
  0x74, 0x06,             //       jz rest
  0xba, 0xf8, 0x03,       //       mov dx, 3f8h
  0xee,                   //       out dx, al
  0xeb, 0xf5,             //       jmp next
  0xf4,                   // rest: hlt
  0xeb, 0xfd,             //       jmp rest
];

/** Says `text` and a newline. */
export function bootableCd(text: string): Buffer {
  const disc = Buffer.alloc((image + 1) * SECTOR);
  const descriptor = (sector: number, type: number) => {
    disc[sector * SECTOR] = type;
    disc.write("CD001\x01", sector * SECTOR + 1, "latin1");
  };
  descriptor(16, 1);
  descriptor(bootRecord, 0);
  disc.write("EL TORITO SPECIFICATION", bootRecord * SECTOR + 7, "latin1");
  disc.writeUInt32LE(catalog, bootRecord * SECTOR + 0x47);
  descriptor(18, 255);
  // Validation entry: its words add up to nothing.
  const first = catalog * SECTOR;
  disc[first] = 1;
  disc.writeUInt16LE(0xaa55, first + 30);
  disc.writeUInt16LE(0x10000 - 0xaa55 - 1, first + 28);
  // Initial entry: bootable, no emulation, four sectors of 512 bytes.
  disc[first + 32] = 0x88;
  disc.writeUInt16LE(4, first + 38);
  disc.writeUInt32LE(image, first + 40);
  disc.set([...code, ...Buffer.from(`${text}\r\n\0`, "latin1")], image * SECTOR);
  return disc;
}

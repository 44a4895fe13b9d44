/** Names of the errors rtnetlink answers with, by their Linux number; see errno(3). */
const names = new Map<number, string>([
  [1, "EPERM"],
  [2, "ENOENT"],
  [4, "EINTR"],
  [6, "ENXIO"],
  [11, "EAGAIN"],
  [12, "ENOMEM"],
  [13, "EACCES"],
  [16, "EBUSY"],
  [17, "EEXIST"],
  [19, "ENODEV"],
  [22, "EINVAL"],
  [33, "EDOM"],
  [34, "ERANGE"],
  [40, "ELOOP"],
  [90, "EMSGSIZE"],
  [95, "EOPNOTSUPP"],
  [97, "EAFNOSUPPORT"],
  [99, "EADDRNOTAVAIL"],
  [100, "ENETDOWN"],
  [105, "ENOBUFS"],
  [110, "ETIMEDOUT"],
]);

/** Symbolic name of errno `number`, `E<number>` for one that is not in the table. */
export function errnoName(number: number): string {
  return names.get(number) ?? `E${number}`;
}

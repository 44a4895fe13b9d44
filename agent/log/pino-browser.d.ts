/** pino without Node's streams, as its package ships it; the interface is the same. */
declare module "pino/browser" {
  export { pino } from "pino";
}

/** yargs without Node, as its package ships it; the interface is the same. */
declare module "yargs/browser" {
  import yargs = require("yargs");
  const factory: (args?: readonly string[]) => yargs.Argv;
  export default factory;
}

/** What reads ini files, as a module of our own: a package that is not ESM has no names when it is loaded lazily. */
export { parse } from "ini";
